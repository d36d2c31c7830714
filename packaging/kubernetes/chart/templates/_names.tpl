{{- define "roleseal.labels" -}}
app.kubernetes.io/name: roleseal
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "roleseal.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* SDKs want an IPv6 address in brackets; so does --listen. */ -}}
{{- define "roleseal.endpoint" -}}
{{- if contains ":" .Values.address -}}
[{{ .Values.address }}]:{{ .Values.port }}
{{- else -}}
{{ .Values.address }}:{{ .Values.port }}
{{- end -}}
{{- end -}}
