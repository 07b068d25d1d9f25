{{/* Every setting of the service's container, from every way in: args, env, extraEnv, secretEnv, configMap. Must not judge
     them; _refuse.tpl does. */}}

{{/* The placeholder for a value that the chart cannot read, such as a Secret's. */}}
{{- define "service.unreadable" -}}
(not readable here)
{{- end }}

{{/* The variable of a flag: --success-rate is SUCCESS_RATE. */}}
{{- define "service.variableOf" -}}
{{- $name := trimPrefix "--" . | upper | replace "-" "_" }}
{{- ternary "OTEL_SERVICE_NAME" $name (eq $name "SERVICE_NAME") }}
{{- end }}

{{/* The settings as JSON: {NAME: [{from, value}]}, in the order in which they are read. NAME is the variable, also for
     a flag. A flag without a value is `true`. Values are without the pair of quotes that the services strip, and
     without spaces around them. */}}
{{- define "service.settings" -}}
{{- $unreadable := include "service.unreadable" . }}
{{- $found := list }}
{{- range $name, $value := .Values.configMap.data | default dict }}
{{- $found = append $found (dict "name" $name "from" "configMap.data" "value" $value) }}
{{- end }}
{{- range $name, $value := .Values.env }}
{{- $found = append $found (dict "name" $name "from" "env" "value" $value) }}
{{- end }}
{{- range $name, $_ := .Values.secretEnv }}
{{- $found = append $found (dict "name" $name "from" "secretEnv" "value" $unreadable) }}
{{- end }}
{{- range .Values.extraEnv }}
{{- $found = append $found (dict "name" .name "from" "extraEnv" "value" (hasKey . "valueFrom" | ternary $unreadable (get . "value"))) }}
{{- end }}
{{- $flag := "" }}
{{- range .Values.args }}
{{- if hasPrefix "--" . }}
{{- if $flag }}
{{- $found = append $found (dict "name" (include "service.variableOf" $flag) "from" "args" "value" "true") }}
{{- end }}
{{- $flag = . }}
{{- if contains "=" . }}
{{- $parts := splitn "=" 2 . }}
{{- $found = append $found (dict "name" (include "service.variableOf" $parts._0) "from" "args" "value" $parts._1) }}
{{- $flag = "" }}
{{- end }}
{{- else if $flag }}
{{- $found = append $found (dict "name" (include "service.variableOf" $flag) "from" "args" "value" .) }}
{{- $flag = "" }}
{{- end }}
{{- end }}
{{- if $flag }}
{{- $found = append $found (dict "name" (include "service.variableOf" $flag) "from" "args" "value" "true") }}
{{- end }}
{{- $settings := dict }}
{{- range $found }}
{{- $value := toString .value | trim }}
{{- range $quote := list "\"" "'" }}
{{- if and (gt (len $value) 1) (hasPrefix $quote $value) (hasSuffix $quote $value) }}
{{- $value = trimPrefix $quote $value | trimSuffix $quote }}
{{- end }}
{{- end }}
{{- $_ := set $settings .name (append (get $settings .name | default list) (dict "from" .from "value" $value)) }}
{{- end }}
{{- toJson $settings }}
{{- end }}
