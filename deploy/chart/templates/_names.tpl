{{/* Names, labels and images. Knows no service by its name. */}}

{{/* The name of every object; by default the release's, which existing scripts and policies know. */}}
{{- define "service.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if and .Values.nameOverride (not (contains .Values.nameOverride .Release.Name)) }}
{{- printf "%s-%s" .Release.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- .Release.Name }}
{{- end }}
{{- end }}

{{/* Labels for the tool and the chart that made an object. Pods have no `helm.sh/chart`: a chart's version alone must
     not roll them. */}}
{{- define "service.chartLabels" -}}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "service.versionLabel" -}}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
{{- end }}

{{- define "service.commonLabels" -}}
{{ include "service.selector" . }}
app.kubernetes.io/component: {{ .Values.component }}
app.kubernetes.io/part-of: {{ .Values.partOf }}
{{ include "service.versionLabel" . }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of objects. */}}
{{- define "service.labels" -}}
{{ include "service.commonLabels" . }}
{{ include "service.chartLabels" . }}
{{- end }}

{{/* Labels of pods. */}}
{{- define "service.podLabels" -}}
{{ include "service.commonLabels" . }}
{{- with .Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels by which selectors find the pods; they never change for a release. */}}
{{- define "service.selector" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Release.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of the pods of a job beside the service, `verify` or `schedule`: no Service and no policy of the service
     selects them. Takes a list: the root, the job. */}}
{{- define "service.jobPodLabels" -}}
{{- $root := first . }}
{{- $job := last . -}}
app.kubernetes.io/name: {{ include "service.fullname" $root }}-{{ $job }}
app.kubernetes.io/instance: {{ include "service.fullname" $root }}-{{ $job }}
app.kubernetes.io/component: {{ $job }}
app.kubernetes.io/part-of: {{ $root.Values.partOf }}
{{ include "service.versionLabel" $root }}
{{- end }}

{{/* Labels of the job's objects. */}}
{{- define "service.jobLabels" -}}
{{ include "service.jobPodLabels" . }}
{{ include "service.chartLabels" (first .) }}
{{- end }}

{{/* The folder of our images, and the name of the service's: `image.repository` is a whole name, as charts have it, when
     its last part names the component (registry.example.com/tinjis/billing), and else the folder of all images (registry.example.com/tinjis). */}}
{{- define "service.imagesFolder" -}}
{{- $path := trimSuffix "/" .Values.image.repository }}
{{- if contains .Values.component (base $path) }}
{{- $path = ternary "" (dir $path) (eq (dir $path) ".") }}
{{- end }}
{{- list .Values.image.registry $path | compact | join "/" }}
{{- end }}

{{- define "service.imageName" -}}
{{- $path := trimSuffix "/" .Values.image.repository }}
{{- if not (contains .Values.component (base $path)) }}
{{- $path = printf "%s/%s" $path .Values.component }}
{{- end }}
{{- list .Values.image.registry $path | compact | join "/" }}
{{- end }}

{{/* The image of the service. A digest wins over a tag, because it names one image for ever. */}}
{{- define "service.image" -}}
{{- if .Values.image.digest }}
{{- include "service.imageName" . }}@{{ .Values.image.digest }}
{{- else }}
{{- include "service.imageName" . }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The image of `tinjis` for the jobs and the test. */}}
{{- define "service.toolsImage" -}}
{{- $name := .Values.toolsImage.repository | default (list (include "service.imagesFolder" .) "tinjis" | compact | join "/") }}
{{- if .Values.toolsImage.digest }}
{{- $name }}@{{ .Values.toolsImage.digest }}
{{- else }}
{{- $name }}:{{ .Values.toolsImage.tag | default .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The sync wave of objects that Argo CD must start only after the migration of wave 0 has succeeded. */}}
{{- define "service.afterMigration" -}}
argocd.argoproj.io/sync-wave: "1"
{{- end }}

{{- define "service.account" -}}
{{ .Values.serviceAccount.name | default (include "service.fullname" .) }}
{{- end }}

{{/* Pull secrets in the form of a pod, from both forms of values: names, and {name}. */}}
{{- define "service.pullSecrets" -}}
{{- $names := list }}
{{- range concat .Values.imagePullSecrets .Values.image.pullSecrets }}
{{- $names = append $names (kindIs "string" . | ternary . (get (kindIs "map" . | ternary . dict) "name")) }}
{{- end }}
{{- with uniq $names }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Nodes and priority of every pod of the release. */}}
{{- define "service.placement" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Address families of every Service. */}}
{{- define "service.ipFamilies" -}}
{{- with .Values.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.ipFamilies }}
ipFamilies: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The address for listening on all interfaces: of IPv4, or of both families where a Service may have IPv6. */}}
{{- define "service.anyAddress" -}}
{{- if or (hasSuffix "DualStack" .Values.ipFamilyPolicy) (has "IPv6" .Values.ipFamilies) -}}
[::]
{{- else -}}
0.0.0.0
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

{{/* Settings of the pods and of the Job that migrates. */}}
{{- define "service.env" -}}
- {name: OTEL_SERVICE_NAME, value: {{ include "service.fullname" . | quote }}}
{{- if .Values.configFile }}
- {name: CONFIG, value: /etc/tinjis/config.yaml}
{{- else }}
- {name: LISTEN, value: "{{ include "service.anyAddress" . }}:{{ .Values.ports.business }}"}
- {name: ADMIN_LISTEN, value: "{{ include "service.anyAddress" . }}:{{ .Values.ports.admin }}"}
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
- {name: TLS_CLIENT_CA, value: /var/run/tinjis/{{ ternary "client-ca" "tls" (not (empty $.Values.tls.clientCaSecret)) }}/ca.crt}
- {name: TLS_ALLOWED_CLIENTS, value: {{ join "," . | quote }}}
{{- end }}
{{- end }}
{{- if and .Values.clientTls.secret (not .Values.configFile) }}
- {name: PROVIDER_CA, value: /var/run/tinjis/{{ ternary "provider-ca" "client-tls" (not (empty .Values.clientTls.caSecret)) }}/ca.crt}
- {name: PROVIDER_CERT, value: /var/run/tinjis/client-tls/tls.crt}
- {name: PROVIDER_KEY, value: /var/run/tinjis/client-tls/tls.key}
{{- end }}
{{- if ne .Values.schedule.by "in-process" }}
- {name: SCHEDULE, value: "off"}
{{- end }}
{{- with .Values.deploymentId }}
- {name: DEPLOYMENT_ID, value: {{ . | quote }}}
{{- end }}
{{- if .Values.production }}
{{- $settings := include "service.settings" . | fromJson }}
{{- if and (eq .Values.component "billing") (not (hasKey $settings "LEGACY_ROUTES")) }}
- {name: LEGACY_ROUTES, value: "off"}
{{- end }}
{{- if and (eq .Values.component "payments") (not (hasKey $settings "RUN_TIME_FAULTS")) }}
- {name: RUN_TIME_FAULTS, value: "off"}
{{- end }}
{{- if and (eq .Values.component "payments") (not (hasKey $settings "CALLER_PROOF")) }}
- {name: CALLER_PROOF, value: all}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- range $name, $from := .Values.secretEnv }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $from.secret }}, key: {{ $from.key }}}}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
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
{{- if .Values.tls.clientCaSecret }}
- {name: client-ca, mountPath: /var/run/tinjis/client-ca, readOnly: true}
{{- end }}
{{- if .Values.clientTls.caSecret }}
- {name: provider-ca, mountPath: /var/run/tinjis/provider-ca, readOnly: true}
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
  persistentVolumeClaim: {claimName: {{ include "service.fullname" . }}-data}
{{- end }}
{{- if .Values.configFile }}
- name: config
  configMap: {name: {{ include "service.fullname" . }}-config}
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  secret: {secretName: {{ .Values.tls.secret }}, defaultMode: 0440}
{{- end }}
{{- if .Values.clientTls.secret }}
- name: client-tls
  secret: {secretName: {{ .Values.clientTls.secret }}, defaultMode: 0440}
{{- end }}
{{- with .Values.tls.clientCaSecret }}
- name: client-ca
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.clientTls.caSecret }}
- name: provider-ca
  secret: {secretName: {{ . }}, defaultMode: 0440}
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
