{{/* Names and labels. Knows no service by its name. */}}

{{- define "service.labels" -}}
app.kubernetes.io/name: {{ .Release.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .Values.component }}
app.kubernetes.io/part-of: {{ .Values.partOf }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Never changes for a release: what selects its pods. */}}
{{- define "service.selector" -}}
app.kubernetes.io/name: {{ .Release.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of the nightly job: they select its own pods only, and no Service selects them. */}}
{{- define "service.verifyLabels" -}}
app.kubernetes.io/name: {{ .Release.Name }}-verify
app.kubernetes.io/instance: {{ .Release.Name }}-verify
app.kubernetes.io/component: verify
app.kubernetes.io/part-of: {{ .Values.partOf }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
{{- end }}

{{/* Labels of the schedule's job, as the nightly job's. */}}
{{- define "service.scheduleLabels" -}}
app.kubernetes.io/name: {{ .Release.Name }}-schedule
app.kubernetes.io/instance: {{ .Release.Name }}-schedule
app.kubernetes.io/component: schedule
app.kubernetes.io/part-of: {{ .Values.partOf }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
{{- end }}

{{- define "service.image" -}}
{{ .Values.image.repository }}/{{ .Values.component }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "service.account" -}}
{{ .Values.serviceAccount.name | default .Release.Name }}
{{- end }}

{{- define "service.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "service.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "service.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities: {drop: [ALL]}
{{- end }}

{{/* Settings: the same for the pods and for the Job that migrates. */}}
{{- define "service.env" -}}
- {name: OTEL_SERVICE_NAME, value: {{ .Release.Name | quote }}}
{{- if .Values.configFile }}
- {name: CONFIG, value: /etc/tinjis/config.yaml}
{{- else }}
- {name: LISTEN, value: "0.0.0.0:{{ .Values.ports.business }}"}
- {name: ADMIN_LISTEN, value: "0.0.0.0:{{ .Values.ports.admin }}"}
{{- end }}
{{- if eq .Values.store.kind "sqlite" }}
- {name: DATABASE_URL, value: "sqlite:/data/{{ .Values.component }}.db"}
{{- else if eq .Values.store.kind "postgres" }}
- name: DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.store.postgres.secret }}, key: {{ .Values.store.postgres.key }}}}
{{- end }}
{{- if and .Values.tls.enabled (not .Values.configFile) }}
- {name: TLS_CERT, value: /var/run/tinjis/tls/tls.crt}
- {name: TLS_KEY, value: /var/run/tinjis/tls/tls.key}
{{- with .Values.tls.allowedClients }}
- {name: TLS_CLIENT_CA, value: /var/run/tinjis/tls/ca.crt}
- {name: TLS_ALLOWED_CLIENTS, value: {{ join "," . | quote }}}
{{- end }}
{{- end }}
{{- if and .Values.clientTls.secret (not .Values.configFile) }}
- {name: PROVIDER_CA, value: /var/run/tinjis/client-tls/ca.crt}
- {name: PROVIDER_CERT, value: /var/run/tinjis/client-tls/tls.crt}
- {name: PROVIDER_KEY, value: /var/run/tinjis/client-tls/tls.key}
{{- end }}
{{- if ne .Values.schedule.by "in-process" }}
- {name: SCHEDULE, value: "off"}
{{- end }}
{{- with .Values.deploymentId }}
- {name: DEPLOYMENT_ID, value: {{ . | quote }}}
{{- end }}
{{- $set := merge (dict) .Values.env (.Values.configMap.data | default dict) }}
{{- if and .Values.production (eq .Values.component "billing") (not (hasKey $set "LEGACY_ROUTES")) }}
- {name: LEGACY_ROUTES, value: "off"}
{{- end }}
{{- range $name, $value := .Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- range $name, $from := .Values.secretEnv }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $from.secret }}, key: {{ $from.key }}}}
{{- end }}
{{- end }}

{{- define "service.mounts" -}}
{{- if eq .Values.store.kind "sqlite" }}
- {name: data, mountPath: /data}
{{- end }}
{{- if .Values.configFile }}
- {name: config, mountPath: /etc/tinjis, readOnly: true}
{{- end }}
{{- if .Values.tls.enabled }}
- {name: tls, mountPath: /var/run/tinjis/tls, readOnly: true}
{{- end }}
{{- if .Values.clientTls.secret }}
- {name: client-tls, mountPath: /var/run/tinjis/client-tls, readOnly: true}
{{- end }}
{{- if .Values.projectedToken.enabled }}
- {name: token, mountPath: /var/run/tinjis/token, readOnly: true}
{{- end }}
{{- range .Values.secretFiles }}
- {name: {{ .name }}, mountPath: {{ .mountPath }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "service.volumes" -}}
{{- if eq .Values.store.kind "sqlite" }}
- name: data
  persistentVolumeClaim: {claimName: {{ .Release.Name }}-data}
{{- end }}
{{- if .Values.configFile }}
- name: config
  configMap: {name: {{ .Release.Name }}-config}
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  secret: {secretName: {{ .Values.tls.secret }}, defaultMode: 0440}
{{- end }}
{{- if .Values.clientTls.secret }}
- name: client-tls
  secret: {secretName: {{ .Values.clientTls.secret }}, defaultMode: 0440}
{{- end }}
{{- if .Values.projectedToken.enabled }}
- name: token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ .Values.projectedToken.audience }}
          expirationSeconds: {{ .Values.projectedToken.expirationSeconds }}
{{- end }}
{{- range .Values.secretFiles }}
- name: {{ .name }}
  secret: {secretName: {{ .secret }}, defaultMode: 0440}
{{- end }}
{{- end }}
