{{- /*
A part of a pod as a CEL literal: a dict with its `value`, and the `path` of its type below Object, as in
`.spec.initContainers`. CEL's own maps hold values of one type; these types hold what the pod's part of that path holds.
The only maps are those of quantities, which may be written as numbers, and those of volumes whose keys are anybody's.
Whole numbers come from YAML as floats. A container's fields and a list's parts stand on lines of their own.
*/ -}}
{{- define "tidings.cel" -}}
{{- $path := .path -}}
{{- if kindIs "map" .value -}}
{{- $isMap := has (base (replace "." "/" $path)) (list "limits" "requests" "volumeAttributes" "labels" "annotations" "matchLabels") -}}
{{- $fields := list -}}
{{- range $key, $value := .value -}}
{{- if $isMap }}{{ $value = toString $value }}{{ end -}}
{{- $field := include "tidings.cel" (dict "value" $value "path" (print $path "." $key)) -}}
{{- $fields = append $fields (printf "%s: %s" ($isMap | ternary (toJson $key) $key) $field) -}}
{{- end -}}
{{- $lines := le (len (splitList "." $path)) 3 -}}
{{ if not $isMap }}Object{{ $path }}{{ end }}{ {{- join ($lines | ternary ",\n" ", ") $fields -}} }
{{- else if kindIs "slice" .value -}}
{{- $items := list -}}
{{- range .value -}}
{{- $items = append $items (include "tidings.cel" (dict "value" . "path" $path)) -}}
{{- end -}}
[{{ join ",\n  " $items }}]
{{- else if or (kindIs "string" .value) (kindIs "bool" .value) -}}
{{ toJson .value }}
{{- else -}}
{{ int64 .value }}
{{- end -}}
{{- end -}}
