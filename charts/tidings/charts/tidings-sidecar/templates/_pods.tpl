{{- /*
What every pod of ours takes from `global`: where its images are, how they are pulled, and whose the user is. The chart
tidings uses these too. None of them reads a value that only one of the two charts has.
*/ -}}

{{- /*
An image's name: a dict with Values, Chart, and image with registry, repository, tag and digest, of which registry, tag and
digest may be empty.
*/ -}}
{{- define "tidings.image" -}}
{{- $registry := (.Values.global | default dict).imageRegistry | default .image.registry -}}
{{- $name := empty $registry | ternary .image.repository (printf "%s/%s" (trimSuffix "/" $registry) .image.repository) -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $name .image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (.image.tag | default .Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{- /* Items of imagePullSecrets, each once: a dict with Values, and own, which is a list of names. */ -}}
{{- define "tidings.pullSecrets" -}}
{{- $names := list -}}
{{- range (.Values.global | default dict).imagePullSecrets -}}
{{- if kindIs "map" . }}{{ $names = append $names .name }}{{ else }}{{ $names = append $names . }}{{ end -}}
{{- end -}}
{{- $items := list -}}
{{- range concat $names (.own | default list) | uniq -}}
{{- $items = append $items (printf "- name: %s" (quote .)) -}}
{{- end -}}
{{- join "\n" $items -}}
{{- end -}}

{{- /*
Whether the cluster assigns user and group of containers, as OpenShift's restricted-v2 does: it refuses a pod that names its
own. "true" or nothing.
*/ -}}
{{- define "tidings.userIsAssigned" -}}
{{- $adapt := dig "compatibility" "openshift" "adaptSecurityContext" "auto" (.Values.global | default dict) -}}
{{- if or (eq $adapt "force") (and (eq $adapt "auto") (.Capabilities.APIVersions.Has "security.openshift.io/v1")) -}}
true
{{- end -}}
{{- end -}}
