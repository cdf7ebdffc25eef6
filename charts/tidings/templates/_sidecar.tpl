{{- /*
What injection adds to a pod, from the library chart tidings-sidecar: the container on an emptyDir and on a volume that
outlives the pod, and the volumes. Registry, tag, pull policy and pull Secrets are those of all images, where the sidecar's say nothing.
*/ -}}
{{- define "tidings.injection.sidecar" -}}
{{- $values := deepCopy .Values.sidecar -}}
{{- $_ := set $values "image" (dict
  "registry" ($values.image.registry | default .Values.image.registry)
  "repository" $values.image.repository
  "tag" ($values.image.tag | default .Values.image.tag)
  "digest" $values.image.digest
  "pullPolicy" ($values.image.pullPolicy | default .Values.image.pullPolicy)
  "pullSecrets" ($values.image.pullSecrets | default .Values.image.pullSecrets)) -}}
{{- $_ := set $values "volume" (dict "sizeLimit" $values.volume.sizeLimit) -}}
{{- $scope := dict "Values" $values "Chart" .Chart "Capabilities" .Capabilities -}}
onEmptyDir:
  {{- include "tidings.sidecar.container" $scope | nindent 2 }}
volumes:
  {{- include "tidings.sidecar.volumes" $scope | nindent 2 }}
pullSecrets:
  {{- include "tidings.sidecar.imagePullSecrets" $scope | nindent 2 }}
{{- $_ := set $values "volume" (dict "persistent" true) }}
onClaim:
  {{- include "tidings.sidecar.container" $scope | nindent 2 }}
{{- end -}}
