{{/* Refuses invalid values with a message before anything is rendered. */}}

{{- define "service.refuse" -}}
{{- $v := .Values }}
{{- range $name, $_ := merge (dict) $v.labels $v.podLabels }}
{{- if or (hasPrefix "app.kubernetes.io/" $name) (eq $name "helm.sh/chart") }}
{{- fail (printf "%s: the chart sets the label %s; use component, partOf, nameOverride or image.tag, or another label." $.Release.Name $name) }}
{{- end }}
{{- end }}
{{- $most := ternary (int $v.autoscaling.maxReplicas) (int $v.replicas) $v.autoscaling.enabled }}
{{- if and (eq $v.store.kind "sqlite") (gt $most 1) }}
{{- fail (printf "%s: SQLite is one file of one process: with %d replicas use store.kind postgres, or say replicas 1." .Release.Name $most) }}
{{- end }}
{{- if and (eq $v.store.kind "none") (has $v.component (list "billing" "payments")) }}
{{- fail (printf "%s: a ledger on a pod's own disk is gone with the pod: say store.kind sqlite or postgres." .Release.Name) }}
{{- end }}
{{- if and (eq $v.store.kind "postgres") (not $v.store.postgres.secret) }}
{{- fail (printf "%s: store.kind postgres needs store.postgres.secret, the Secret that holds the URL." .Release.Name) }}
{{- end }}
{{- if eq $v.store.kind "postgres" }}
{{- $surge := add1 $most }}
{{- $wanted := mul $surge (int $v.store.postgres.connectionsPerPod) }}
{{- if gt $wanted (int $v.store.postgres.connectionsMax) }}
{{- fail (printf "%s: %d pods (one more during a rollout) with %d connections each are %d, and the database gives %d." .Release.Name $surge (int $v.store.postgres.connectionsPerPod) $wanted (int $v.store.postgres.connectionsMax)) }}
{{- end }}
{{- end }}
{{- $drain := add (int $v.stopDelaySeconds) 26 }}
{{- if lt (int $v.gracePeriodSeconds) (int $drain) }}
{{- fail (printf "%s: gracePeriodSeconds %d is shorter than a drain, %d s: calls would be killed half done." .Release.Name (int $v.gracePeriodSeconds) $drain) }}
{{- end }}
{{- if not (kindIs "invalid" $v.disruptionBudget.maxUnavailable) }}
{{- $least := ternary (int $v.autoscaling.minReplicas) (int $v.replicas) $v.autoscaling.enabled }}
{{- if lt (int $v.disruptionBudget.maxUnavailable) 1 }}
{{- fail (printf "%s: a disruption budget of %v blocks every drain of a node for ever; say at least 1." .Release.Name $v.disruptionBudget.maxUnavailable) }}
{{- end }}
{{- if ge (int $v.disruptionBudget.maxUnavailable) $least }}
{{- fail (printf "%s: a disruption budget of %v lets all %d pods go at once." .Release.Name $v.disruptionBudget.maxUnavailable $least) }}
{{- end }}
{{- end }}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) }}
{{- fail (printf "%s: autoscaling from %d to %d pods is no range." .Release.Name (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) }}
{{- end }}
{{- if and $v.tls.enabled (not $v.tls.secret) }}
{{- fail (printf "%s: tls.enabled needs tls.secret, the name of the Secret with the certificate." .Release.Name) }}
{{- end }}
{{- if and (or $v.ingress.enabled $v.gateway.enabled $v.tests.enabled) (not $v.services) }}
{{- fail (printf "%s: an Ingress, a route or a test needs a Service; services is empty." .Release.Name) }}
{{- end }}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) }}
{{- fail (printf "%s: an Ingress without ingress.hosts would route no calls, or every host's." .Release.Name) }}
{{- end }}
{{- if or (and $v.ingress.enabled (not $v.ingress.paths)) (and $v.gateway.enabled (not $v.gateway.paths)) }}
{{- fail (printf "%s: an Ingress or a route publishes named paths only; list them in ingress.paths or gateway.paths." .Release.Name) }}
{{- end }}
{{- if and (has $v.component (list "pinger" "ponger")) (not $v.configFile) }}
{{- fail (printf "%s: %s is configured by a file; say configFile." .Release.Name $v.component) }}
{{- end }}
{{- if and $v.configFile (not (has $v.component (list "pinger" "ponger"))) }}
{{- fail (printf "%s: configFile is the ping pair's; %s reads no file, and would listen without TLS. Use env." .Release.Name $v.component) }}
{{- end }}
{{- include "service.refuseWildcards" . }}
{{- if and $v.gateway.enabled (not (and (get $v.gateway.parent "name") $v.gateway.hosts)) }}
{{- fail (printf "%s: a route without gateway.parent.name belongs to no Gateway, and one without gateway.hosts takes every host's calls; set both." .Release.Name) }}
{{- end }}
{{- if and $v.clientTls.issuer (not (and $v.clientTls.secret $v.clientTls.uri)) }}
{{- fail (printf "%s: clientTls.issuer makes a certificate; it needs clientTls.secret and the name, clientTls.uri." .Release.Name) }}
{{- end }}
{{- if or (and $v.clientTls.caSecret (not $v.clientTls.secret)) (and $v.verify.tls.caSecret (not $v.verify.tls.secret)) }}
{{- fail (printf "%s: caSecret only replaces the CAs of a certificate: say clientTls.secret or verify.tls.secret too." .Release.Name) }}
{{- end }}
{{- if and $v.tls.clientCaSecret (not (and $v.tls.enabled $v.tls.allowedClients)) }}
{{- fail (printf "%s: tls.clientCaSecret has no effect where no certificate is required: say tls.enabled and tls.allowedClients too." .Release.Name) }}
{{- end }}
{{- if $v.verify.enabled }}
{{- if not (and (eq $v.component "billing") $v.services) }}
{{- fail (printf "%s: verify asks billing by its Service; it stands with component billing and one of services." .Release.Name) }}
{{- end }}
{{- if not $v.verify.payments }}
{{- fail (printf "%s: verify.enabled needs verify.payments, the URL of the payment service whose ledger is read." .Release.Name) }}
{{- end }}
{{- end }}
{{- if and (ne $v.schedule.by "in-process") (ne $v.component "billing") }}
{{- fail (printf "%s: schedule is billing's; %s has none." .Release.Name $v.component) }}
{{- end }}
{{- with get (include "service.settings" . | fromJson) "SCHEDULE" }}
{{- fail (printf "%s: SCHEDULE in %s is said twice: schedule.by decides whether billing or a CronJob works on the schedule, not both." $.Release.Name (first .).from) }}
{{- end }}
{{- if eq $v.schedule.by "cronjob" }}
{{- if not (and $v.services $v.schedule.operatorTokenSecret) }}
{{- fail (printf "%s: schedule.by cronjob asks billing by its Service as an operator: say services and schedule.operatorTokenSecret." .Release.Name) }}
{{- end }}
{{- if and $v.tls.enabled (not $v.schedule.tlsSecret) }}
{{- fail (printf "%s: billing speaks TLS: schedule.by cronjob needs schedule.tlsSecret, a certificate that billing accepts." .Release.Name) }}
{{- end }}
{{- end }}
{{- if and $v.verify.tls.issuer (not (and $v.verify.tls.secret $v.verify.tls.uri)) }}
{{- fail (printf "%s: verify.tls.issuer makes a certificate; it needs verify.tls.secret and the name, verify.tls.uri." .Release.Name) }}
{{- end }}
{{- if and $v.tests.enabled $v.tls.enabled }}
{{- fail (printf "%s: the test has no certificate; say tests.enabled false where tls.enabled is true." .Release.Name) }}
{{- end }}
{{- if and $v.services (not $v.ports.business) }}
{{- fail (printf "%s: a Service needs ports.business." .Release.Name) }}
{{- end }}
{{- if eq (toString $v.ports.business) (toString $v.ports.admin) }}
{{- fail (printf "%s: the admin port %v is the business port too; metrics would be public." .Release.Name $v.ports.admin) }}
{{- end }}
{{- if and $v.deploymentId (ne $v.component "billing") }}
{{- fail (printf "%s: deploymentId is billing's; %s has none." .Release.Name $v.component) }}
{{- end }}
{{- include "service.refuseInProduction" . }}
{{- end }}

{{- define "service.refuseInProduction" -}}
{{- $v := .Values }}
{{- if $v.production }}
{{- if has "latest" (list ($v.image.tag | default .Chart.AppVersion) $v.toolsImage.tag) }}
{{- fail (printf "%s: the tag latest moves; production names a version." .Release.Name) }}
{{- end }}
{{- include "service.refuseSettingsInProduction" . }}
{{- if and $v.verify.enabled (not (hasPrefix "https://" (lower $v.verify.payments))) }}
{{- fail (printf "%s: verify.payments %s in production is not encrypted; use https://." .Release.Name $v.verify.payments) }}
{{- end }}
{{- if and $v.verify.enabled (not $v.verify.readerTokenSecret) }}
{{- fail (printf "%s: verify in production needs verify.readerTokenSecret, a reader's token of billing." .Release.Name) }}
{{- end }}
{{- if and (eq $v.component "billing") (not $v.deploymentId) }}
{{- fail (printf "%s: billing in production needs deploymentId, a UUID drawn once: a lost store must not come up as another deployment." .Release.Name) }}
{{- end }}
{{- if eq $v.store.kind "sqlite" }}
{{- fail (printf "%s: SQLite in production ends with its node; use store.kind postgres." .Release.Name) }}
{{- end }}
{{- if and (eq $v.component "payments") (not (and $v.tls.enabled $v.tls.allowedClients)) }}
{{- fail (printf "%s: payments in production needs a SAN allow-list: set tls.enabled and tls.allowedClients." .Release.Name) }}
{{- end }}
{{- if and (eq $v.component "payments") $v.networkPolicy.public }}
{{- fail (printf "%s: networkPolicy.public in production lets every pod reach payments." .Release.Name) }}
{{- end }}
{{- range ternary $v.networkPolicy.from list (eq $v.component "payments") }}
{{- if include "service.isEverywhere" . }}
{{- fail (printf "%s: networkPolicy.from %s in production accepts every pod or address; name the namespaces and pods that call." $.Release.Name (toJson .)) }}
{{- end }}
{{- end }}
{{- range $way := $v.networkPolicy.to }}
{{- range .to }}
{{- if include "service.isEverywhere" . }}
{{- fail (printf "%s: networkPolicy.to %s in production reaches everything, on port %v; name what is called." $.Release.Name (toJson .) $way.port) }}
{{- end }}
{{- end }}
{{- end }}
{{- if not $v.networkPolicy.enabled }}
{{- fail (printf "%s: production without a NetworkPolicy trusts every pod of the cluster." .Release.Name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether a NetworkPolicyPeer selects every pod of every namespace, or every address. */}}
{{- define "service.isEverywhere" -}}
{{- $block := get . "ipBlock" | default dict }}
{{- $namespaces := get . "namespaceSelector" | default dict }}
{{- $pods := get . "podSelector" | default dict }}
{{- if hasSuffix "/0" (get $block "cidr" | default "") -}}
true
{{- else if and (hasKey . "namespaceSelector") (not (or (get $namespaces "matchLabels") (get $namespaces "matchExpressions"))) (not (or (get $pods "matchLabels") (get $pods "matchExpressions"))) -}}
true
{{- end }}
{{- end }}

{{/* Refuses allow-lists that do not name callers exactly, in every environment. */}}
{{- define "service.refuseWildcards" -}}
{{- $settings := include "service.settings" . | fromJson }}
{{- $lists := list (dict "from" "tls.allowedClients" "value" (join "," .Values.tls.allowedClients)) }}
{{- range $name := list "TLS_ALLOWED_CLIENTS" "JWT_SUBJECTS" }}
{{- range get $settings $name | default list }}
{{- $lists = append $lists (dict "from" (printf "%s in %s" $name .from) "value" .value) }}
{{- end }}
{{- end }}
{{- $file := .Values.configFile | default "{}" | fromYaml }}
{{- $allowed := get (get $file "service" | default dict) "allowedClients" | default list }}
{{- $lists = append $lists (dict "from" "service.allowedClients of configFile" "value" (join "," $allowed)) }}
{{- range $lists }}
{{- if contains "*" .value }}
{{- fail (printf "%s: %s has a wildcard, %s; name each caller exactly." $.Release.Name .from .value) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Refuses settings that production does not accept, from every way in. A value that cannot be read here is refused
     too, because a Secret could have any value. Settings that the chart makes from values come from there only. */}}
{{- define "service.refuseSettingsInProduction" -}}
{{- $v := .Values }}
{{- $settings := include "service.settings" . | fromJson }}
{{- range $v.args }}
{{- if contains "$(" . }}
{{- fail (printf "%s: args has %s; production judges its arguments, so write them out." $.Release.Name .) }}
{{- end }}
{{- end }}
{{- $no := "^(?i:false|0|no)?$" }}
{{- $accepted := dict
  "DEMO" (list "^(none)?$" "would charge invented invoices")
  "FAULTS" (list "^$" "would break what it is paid to hold")
  "SUCCESS_RATE" (list "^$" "decides charges by chance, for tests only")
  "SEED" (list "^$" "decides charges by chance, for tests only")
  "TEST_AMOUNTS" (list $no "would decide real charges by their amount")
  "VIRTUAL_CLOCK" (list "^$" "would date charges by the clock of a simulation")
  "RUN_TIME_FAULTS" (list "^off$" "lets an operator break what it is paid to hold; leave it off")
  "ALLOW_ANONYMOUS" (list $no "lets anybody charge")
  "ANONYMOUS_READS" (list $no "shows every invoice to anybody; use reader tokens (READER_TOKEN_FILE)")
  "LEGACY_ROUTES" (list "^(token|off)$" "lets anybody start a run unless it is token or off")
  "CALLER_PROOF" (list "^all$" "accepts callers that show one proof of several unless it is all")
}}
{{- range $name, $rule := $accepted }}
{{- range get $settings $name | default list }}
{{- if not (regexMatch (first $rule) .value) }}
{{- fail (printf "%s: %s in production %s; %s has %q." $.Release.Name $name (last $rule) .from .value) }}
{{- end }}
{{- end }}
{{- end }}
{{- range get $settings "PAYMENTS_API_TOKEN" | default list }}
{{- if and .value (ne .from "secretEnv") (ne .value (include "service.unreadable" $)) }}
{{- fail (printf "%s: PAYMENTS_API_TOKEN in production in %s is a token that every reader of the values has; use secretFiles and PAYMENTS_API_TOKEN_FILE." $.Release.Name .from) }}
{{- end }}
{{- end }}
{{- $made := dict "LISTEN" "ports.business" "ADMIN_LISTEN" "ports.admin" "DATABASE_URL" "store" "DEPLOYMENT_ID" "deploymentId" "TLS_CERT" "tls.secret" "TLS_KEY" "tls.secret" "TLS_CLIENT_CA" "tls.allowedClients" "TLS_ALLOWED_CLIENTS" "tls.allowedClients" }}
{{- if $v.clientTls.secret }}
{{- $made = merge $made (dict "PROVIDER_CA" "clientTls.secret" "PROVIDER_CERT" "clientTls.secret" "PROVIDER_KEY" "clientTls.secret") }}
{{- end }}
{{- range $name, $value := $made }}
{{- with get $settings $name }}
{{- fail (printf "%s: %s in %s would override what %s says; in production set %s only." $.Release.Name $name (first .).from $value $value) }}
{{- end }}
{{- end }}
{{- if eq $v.component "billing" }}
{{- include "service.refuseProviders" (list . $settings) }}
{{- end }}
{{- $url := get (get ($v.configFile | default "{}" | fromYaml) "ponger" | default dict) "url" | default "https://" }}
{{- if not (hasPrefix "https://" (lower $url)) }}
{{- fail (printf "%s: ponger.url %s of configFile in production is not encrypted; use https://." .Release.Name $url) }}
{{- end }}
{{- end }}

{{/* Requires an https:// provider in the values: the default provider is a plain one on the same machine. */}}
{{- define "service.refuseProviders" -}}
{{- $root := first . }}
{{- $settings := last . }}
{{- $named := list }}
{{- range $name := list "PAYMENT_PROVIDER_ENDPOINT" "PAYMENT_PROVIDER_URL" "payment-provider-url" }}
{{- range get $settings $name | default list }}
{{- if .value }}
{{- $named = append $named .value }}
{{- if not (hasPrefix "https://" (lower .value)) }}
{{- fail (printf "%s: %s in production is not an https:// URL; %s has %q." $root.Release.Name $name .from .value) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if not $named }}
{{- fail (printf "%s: billing in production needs PAYMENT_PROVIDER_ENDPOINT in env, an https:// URL." $root.Release.Name) }}
{{- end }}
{{- end }}
