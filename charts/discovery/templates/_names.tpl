{{/* The agents' name: of the DaemonSet, and (with a suffix or without) of all that goes with it. */}}
{{- define "discovery.name" -}}
{{- if contains "discovery" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-discovery" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "discovery.agent" -}}
{{ include "discovery.name" . }}-agent
{{- end }}

{{/* Cluster-wide objects also carry the namespace: two releases of one name must not share them. */}}
{{- define "discovery.clusterName" -}}
{{ .Release.Namespace | trunc 40 | trimSuffix "-" }}-{{ include "discovery.agent" . }}
{{- end }}

{{- define "discovery.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "discovery.agent" .) }}
{{- end }}

{{/* The agents as the API server names them. */}}
{{- define "discovery.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "discovery.serviceAccount" . }}
{{- end }}

{{- define "discovery.selector" -}}
app.kubernetes.io/name: discovery
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end }}

{{- define "discovery.guard" -}}
{{ include "discovery.name" . }}-guard
{{- end }}

{{- define "discovery.guardSelector" -}}
app.kubernetes.io/name: discovery
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: guard
{{- end }}

{{- define "discovery.labels" -}}
app.kubernetes.io/name: discovery
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "discovery.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end }}

{{- /* F and W, which agents and guards must agree on. */}}
{{- define "discovery.lease" -}}
- name: DISCOVERY_LEASE
  value: {{ .Values.agent.failover.leaseSeconds | quote }}
- name: DISCOVERY_LEASE_WAIT
  value: {{ .Values.agent.failover.waitSeconds | quote }}
{{- end }}
