{{/* The name of the operator's objects, and of its Lease. */}}
{{- define "tidings.operator.name" -}}
{{ printf "%s-operator" .Release.Name | trunc 63 }}
{{- end }}

{{- define "tidings.operator.serviceAccountName" -}}
{{ .Values.operator.serviceAccount.name | default (include "tidings.operator.name" .) }}
{{- end }}

{{/* By these the operator's pods are found; they never change. */}}
{{- define "tidings.operator.selector" -}}
app.kubernetes.io/name: tidings
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* The labels of every object. */}}
{{- define "tidings.labels" -}}
app.kubernetes.io/name: tidings
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* An image: a dict with root, and image with its repository and digest. */}}
{{- define "tidings.image" -}}
{{- $values := .root.Values.image -}}
{{- $name := .image.repository -}}
{{- with $values.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $name .image.digest }}
{{- else -}}
{{ printf "%s:%s" $name ($values.tag | default .root.Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{/* What the restricted Pod Security Standard asks of a pod. */}}
{{- define "tidings.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What it asks of a container, and a root that cannot be written. */}}
{{- define "tidings.securityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* The names of the Secrets that hold an AuthServer's plan: its head, and 32 slots for its shards. */}}
{{- define "tidings.planSecrets" -}}
- tidings-plan-{{ . }}
{{- $name := . }}
{{- range $slot := until 32 }}
- tidings-shard-{{ $slot }}-{{ $name }}
{{- end }}
{{- end }}
