{{/* Name of everything in this chart. */}}
{{- define "ztunnel.name" -}}
{{- .Values.resourceName | default "ztunnel" -}}
{{- end -}}

{{/* A reference to the image: `image` with a slash is one; otherwise it is looked for in `hub`. */}}
{{- define "ztunnel.image" -}}
{{- $global := .Values.global | default dict -}}
{{- if contains "/" (.Values.image | toString) -}}
{{- .Values.image -}}
{{- else -}}
{{- $hub := .Values.hub | default $global.hub | required "set hub (the registry that has the image), or image to a full reference" -}}
{{- $tag := .Values.tag | default $global.tag | default .Chart.AppVersion -}}
{{- $variant := .Values.variant | default $global.variant -}}
{{- $hub }}/{{ .Values.image }}:{{ $tag }}{{ if $variant }}-{{ $variant }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* istiod's address, without a scheme as in Istio's chart. */}}
{{- define "ztunnel.istiod" -}}
istiod{{ if and .Values.revision (ne .Values.revision "default") }}-{{ .Values.revision }}{{ end }}.{{ .Values.istioNamespace }}.svc:15012
{{- end -}}

{{- define "ztunnel.labels" -}}
app.kubernetes.io/name: ztunnel
app.kubernetes.io/part-of: istio
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Values.tag | default .Chart.AppVersion | toString | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
