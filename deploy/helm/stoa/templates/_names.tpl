{{- define "stoa.name" -}}
{{- $name := contains "stoa" .Release.Name | ternary .Release.Name (printf "%s-stoa" .Release.Name) }}
{{- $name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "stoa.selector" -}}
app.kubernetes.io/name: stoa
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stoa.labels" -}}
{{ include "stoa.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "stoa.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "stoa.secret" -}}
{{- .Values.secret.existing | default (include "stoa.name" .) }}
{{- end }}

{{- define "stoa.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "stoa.name" .) }}
{{- end }}

{{- define "stoa.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "stoa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "stoa.environment" -}}
{{- $fixed := dict
  "STOA_ENV" "production"
  "STOA_BASE_DOMAIN" .Values.baseDomain
  "STOA_BASE_URL" (.Values.baseURL | default (printf "https://%s" .Values.baseDomain))
  "STOA_DATA_DIR" "/var/lib/stoa/data"
  "STOA_LISTEN" "0.0.0.0"
  "PORT" "3000"
  "STOA_PRIVATE_LISTEN" "0.0.0.0:9090"
  "STOA_PRIVATE_HOSTS" (printf "%s-private.%s,%s-private.%s.svc" (include "stoa.name" .) .Release.Namespace (include "stoa.name" .) .Release.Namespace)
  "STOA_STOP_TIMEOUT" (printf "%ds" (int .Values.stop.timeoutSeconds))
  "STOA_DRAIN_DELAY" (printf "%ds" (int .Values.stop.drainDelaySeconds)) }}
{{- with .Values.backupStorage }}{{ $_ := set $fixed "STOA_BACKUP_STORAGE" . }}{{ end }}
{{- if .Values.trustedProxies }}{{ $_ := set $fixed "STOA_TRUSTED_PROXIES" (join "," .Values.trustedProxies) }}{{ end }}
{{- range $name, $value := .Values.settings }}
{{- if hasKey $fixed $name }}{{ fail (printf "settings.%s: the chart sets this itself" $name) }}{{ end }}
{{- $_ := set $fixed $name (toString $value) }}
{{- end }}
{{- range $name, $value := $fixed }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* Faults that the schema cannot express. */}}
{{- define "stoa.check" -}}
{{- $s := .Values.secret }}
{{- if and $s.existing $s.values }}{{ fail "secret: give existing or values, not both" }}{{ end }}
{{- if not $s.existing }}
{{- range list "MASTER_DB_URL" "ENCRYPTION_KEY" "JWT_SECRET" }}
{{- if not (index $s.values .) }}{{ fail (printf "secret.values.%s is needed, or secret.existing: make keys with 'stoa keys generate'" .) }}{{ end }}
{{- end }}
{{- end }}
{{- $many := gt (int .Values.replicas) 1 }}
{{- if .Values.autoscaling.enabled }}{{ $many = gt (int .Values.autoscaling.maxReplicas) 1 }}{{ end }}
{{- $server := .Values.managedOnServer }}
{{- if not $s.existing }}{{ $server = and (index $s.values "STOA_MANAGED_DATABASE_URL") true }}{{ end }}
{{- $sqlite := and (not $s.existing) (not (hasPrefix "postgres" (index $s.values "MASTER_DB_URL"))) }}
{{- if and $many $sqlite }}{{ fail "several replicas need a PostgreSQL master: MASTER_DB_URL=postgres://…; or set replicas=1 and autoscaling.enabled=false" }}{{ end }}
{{- if and $many (not $server) }}{{ fail "several replicas need managed databases on a server: STOA_MANAGED_DATABASE_URL (managedOnServer with an existing Secret); or set replicas=1 and autoscaling.enabled=false" }}{{ end }}
{{- if and $many (not .Values.backupStorage) (ne (toString (index .Values.settings "STOA_BACKUP_SCHEDULE")) "none") }}{{ fail "several replicas need one place for archives: backupStorage=s3://…; or settings.STOA_BACKUP_SCHEDULE=none" }}{{ end }}
{{- if and (or (not $server) $sqlite) (not .Values.persistence.enabled) (not .Values.persistence.existingClaim) }}{{ fail "embedded databases are files in the data directory: set persistence.enabled=true" }}{{ end }}
{{- if and $many .Values.persistence.enabled }}{{ fail "persistence is one volume, for one replica: several replicas keep nothing in their data directory" }}{{ end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}{{ fail "autoscaling.minReplicas is above maxReplicas" }}{{ end }}
{{- if ge (int .Values.stop.drainDelaySeconds) (int .Values.stop.timeoutSeconds) }}{{ fail "stop.drainDelaySeconds is a part of stop.timeoutSeconds and has to be less" }}{{ end }}
{{- if and (eq .Values.migrations.mode "hook") (not (or $s.existing .Values.migrations.existingSecret)) }}{{ fail "migrations.mode=hook needs secret.existing or migrations.existingSecret: the hook runs before the chart's own Secret is there" }}{{ end }}
{{- end }}
