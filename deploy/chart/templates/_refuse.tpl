{{/* Nonsense, refused with a sentence before anything is rendered. */}}

{{- define "service.refuse" -}}
{{- $v := .Values }}
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
{{- if and $v.clientTls.issuer (not (and $v.clientTls.secret $v.clientTls.uri)) }}
{{- fail (printf "%s: clientTls.issuer makes a certificate; it needs clientTls.secret and the name, clientTls.uri." .Release.Name) }}
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
{{- if hasKey (merge (dict) $v.env ($v.configMap.data | default dict)) "SCHEDULE" }}
{{- fail (printf "%s: SCHEDULE in env is said twice: schedule.by decides whether billing or a CronJob works on the schedule, not both." .Release.Name) }}
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
{{- if eq ($v.image.tag | default .Chart.AppVersion) "latest" }}
{{- fail (printf "%s: the tag latest moves; production names a version." .Release.Name) }}
{{- end }}
{{- $set := merge (dict) $v.env ($v.configMap.data | default dict) }}
{{- if ne (get $set "DEMO" | default "none") "none" }}
{{- fail (printf "%s: DEMO in production would charge invented invoices." .Release.Name) }}
{{- end }}
{{- if get $set "FAULTS" }}
{{- fail (printf "%s: FAULTS in production would break what it is paid to hold." .Release.Name) }}
{{- end }}
{{- if eq (lower (toString (get $set "ALLOW_ANONYMOUS"))) "true" }}
{{- fail (printf "%s: ALLOW_ANONYMOUS in production lets anybody charge." .Release.Name) }}
{{- end }}
{{- if eq (lower (toString (get $set "ANONYMOUS_READS"))) "true" }}
{{- fail (printf "%s: ANONYMOUS_READS in production shows every invoice to anybody; use reader tokens (READER_TOKEN_FILE)." .Release.Name) }}
{{- end }}
{{- if eq (lower (toString (get $set "LEGACY_ROUTES"))) "open" }}
{{- fail (printf "%s: LEGACY_ROUTES=open in production lets anybody start a run; use token or off." .Release.Name) }}
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
{{- if not $v.networkPolicy.enabled }}
{{- fail (printf "%s: production without a NetworkPolicy trusts every pod of the cluster." .Release.Name) }}
{{- end }}
{{- end }}
{{- end }}
