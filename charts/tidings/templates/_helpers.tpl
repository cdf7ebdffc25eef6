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

{{/*
The annotations of every object, after its labels: the chart's scope, or a dict with Values and the object's own as `own`.
Nothing where there are none.
*/}}
{{- define "tidings.annotations" -}}
{{- with merge (dict) (.own | default dict) .Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{/* One of the chart's images, in the registry and with the tag of all: a dict with root, and image with its own values. */}}
{{- define "tidings.ownImage" -}}
{{- $image := merge (dict) .image (pick .root.Values.image "registry" "tag") -}}
{{- include "tidings.image" (dict "Values" .root.Values "Chart" .root.Chart "image" $image) -}}
{{- end }}

{{/* What the restricted Pod Security Standard asks of a pod. */}}
{{- define "tidings.podSecurityContext" -}}
runAsNonRoot: true
{{- if not (include "tidings.userIsAssigned" .) }}
runAsUser: 65532
runAsGroup: 65532
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What it asks of a container, and a root that cannot be written. */}}
{{- define "tidings.securityContext" -}}
runAsNonRoot: true
{{- if not (include "tidings.userIsAssigned" .) }}
runAsUser: 65532
runAsGroup: 65532
{{- end }}
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

{{/*
Refuses a key of `global` that the chart does not know, by its name. A parent chart's `global` is for its other charts too:
there it is taken as it is.
*/}}
{{- define "tidings.checkGlobal" -}}
{{- if .Chart.IsRoot }}
{{- $known := dict "global" (list "imageRegistry" "imagePullSecrets" "compatibility") "global.compatibility" (list "openshift") "global.compatibility.openshift" (list "adaptSecurityContext") }}
{{- $openshift := dig "compatibility" "openshift" (dict) .Values.global }}
{{- range $path, $values := dict "global" .Values.global "global.compatibility" (.Values.global.compatibility | default dict) "global.compatibility.openshift" $openshift }}
{{- range $key := keys $values | sortAlpha }}
{{- if not (has $key (get $known $path)) }}
{{- fail (printf "%s.%s is not a value of this chart: %s has %s" $path $key $path (get $known $path | join ", ")) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
