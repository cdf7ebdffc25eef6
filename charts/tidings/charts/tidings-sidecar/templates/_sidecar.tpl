{{- /*
The sidecar for any pod template. Each takes the scope of this library chart, which a chart that has it as a dependency
finds under the dependency's name or alias:

    {{ include "tidings.sidecar.container" .Subcharts.sidecar }}

The container is the same for every pod: which AuthServer it is for stands in the pod's label tidings.dev/auth-server.
*/ -}}

{{- /* The container: put it first under initContainers, so that other init containers find it running. */ -}}
{{- define "tidings.sidecar.container" -}}
{{- $values := .Values -}}
{{- $kept := or $values.volume.persistent $values.volume.claimName -}}
name: tidings
image: {{ include "tidings.sidecar.image" . }}
imagePullPolicy: {{ $values.image.pullPolicy | default "IfNotPresent" }}
# With it an init container is a sidecar: it starts before the containers and ends after them (Kubernetes 1.29).
restartPolicy: Always
{{- with $values.extraArgs }}
args:
  {{- toYaml . | nindent 2 }}
{{- end }}
env:
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: POD_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  - name: POD_UID
    valueFrom: {fieldRef: {fieldPath: metadata.uid}}
  - name: AUTH_SERVER_NAME
    valueFrom: {fieldRef: {fieldPath: "metadata.labels['tidings.dev/auth-server']"}}
  - name: TIDINGS_AUTH_SERVER
    value: $(POD_NAMESPACE)/$(AUTH_SERVER_NAME)
  - name: TIDINGS_ADMIN_LISTEN
    value: 0.0.0.0:8788
  - name: TIDINGS_DATA_DIR
    value: /var/lib/tidings
  - name: TIDINGS_MAX_BYTES
    value: {{ $values.maxBytes | quote }}
  - name: TIDINGS_MIN_FREE_BYTES
    value: {{ $values.minFreeBytes | quote }}
  - name: TIDINGS_LOG
    value: {{ $values.logLevel | quote }}
{{- with $values.extraEnv }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not $kept }}
  # An emptyDir goes with the pod: deliver what can be delivered before the end, and refuse events before it is full.
  - name: TIDINGS_DRAIN_UNTIL
    value: delivered
  - name: TIDINGS_DATA_SIZE_LIMIT
    value: {{ $values.volume.sizeLimit | quote }}
{{- end }}
ports:
  - name: tidings-admin
    containerPort: 8788
    protocol: TCP
# The auth server starts once this succeeds: when the sidecar runs a plan, or after 10 s without one.
startupProbe:
  httpGet: {path: /startupz, port: tidings-admin}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: tidings-admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
# No readinessProbe: a full disk in the sidecar must not take sign-ins out of service.
# What it said last stands in the pod's status when it ended badly.
terminationMessagePolicy: FallbackToLogsOnError
resources: {{- toYaml $values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  {{- if not (include "tidings.userIsAssigned" .) }}
  runAsUser: 65532
  runAsGroup: 65532
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  - name: tidings-data
    mountPath: /var/lib/tidings
  - name: tidings-token
    mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    readOnly: true
{{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Its volumes: items for the pod's list. */ -}}
{{- define "tidings.sidecar.volumes" -}}
{{- if .Values.volume.claimName -}}
- name: tidings-data
  persistentVolumeClaim: {claimName: {{ .Values.volume.claimName }}}
{{ else if not .Values.volume.persistent -}}
- name: tidings-data
  emptyDir: {sizeLimit: {{ .Values.volume.sizeLimit }}}
{{ end -}}
# The ServiceAccount's token, for the sidecar alone: with automountServiceAccountToken: false the auth server has none.
- name: tidings-token
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The Secrets with which its image is pulled: items for the pod's imagePullSecrets, or nothing. */ -}}
{{- define "tidings.sidecar.imagePullSecrets" -}}
{{- include "tidings.pullSecrets" (dict "Values" .Values "own" .Values.image.pullSecrets) -}}
{{- end -}}

{{- define "tidings.sidecar.image" -}}
{{- include "tidings.image" (dict "Values" .Values "Chart" .Chart "image" .Values.image) | quote -}}
{{- end -}}
