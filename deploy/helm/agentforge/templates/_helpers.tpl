{{- /* The image of a name: by digest if there is one, else by the one tag of all. */ -}}
{{- define "agentforge.image" -}}
{{- $image := .root.Values.image -}}
{{- with index $image.digests .name -}}
{{ $image.repository }}/{{ $.name }}@{{ . }}
{{- else -}}
{{ $image.repository }}/{{ .name }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* The Secret that stands for one of the template. */ -}}
{{- define "agentforge.secret" -}}
{{- index .root.Values.secret.existingSecrets .name | default .name -}}
{{- end -}}
