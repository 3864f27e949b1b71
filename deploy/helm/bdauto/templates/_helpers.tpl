{{/* The labels of an object. Takes [root, name, more]: the name is that of the workload it belongs to, or "". `more`
     go before the labels of all objects. */}}
{{- define "bdauto.labels" -}}
{{- $root := index . 0 -}}
{{- $own := dict "app.kubernetes.io/part-of" "bdauto" -}}
{{- with index . 1 }}{{ $_ := set $own "app.kubernetes.io/name" . }}{{ end -}}
{{- $more := dict -}}
{{- if gt (len .) 2 }}{{ $more = index . 2 | default dict }}{{ end -}}
{{- toYaml (mergeOverwrite (deepCopy ($root.Values.labels | default dict)) (deepCopy $more) $own) -}}
{{- end }}

{{- define "bdauto.metadata" -}}
{{- $dolt := .Values.dolt -}}
{{- $metadata := dict
      "database" "dolt"
      "backend" "dolt"
      "dolt_mode" "server"
      "dolt_server_host" $dolt.host
      "dolt_server_port" (int $dolt.port)
      "dolt_server_user" $dolt.user
      "dolt_database" $dolt.database -}}
{{- with $dolt.projectId }}{{ $_ := set $metadata "project_id" . }}{{ end -}}
{{- toJson $metadata -}}
{{- end }}

{{- define "bdauto.settings" -}}
{{- if not (or .Values.beadboardUrl .Values.agent.url .Values.kubernetes.enabled .Values.config) -}}
{{- fail "nothing runs the agent: give beadboardUrl, or agent.url for the agent service without BeadBoard, or kubernetes.enabled" -}}
{{- end -}}
{{- if and .Values.kubernetes.enabled (or .Values.beadboardUrl .Values.agent.url) -}}
{{- fail "kubernetes.enabled excludes beadboardUrl and agent.url" -}}
{{- end -}}
{{- if and .Values.beadboardUrl .Values.agent.name -}}
{{- fail "agent.name has no effect with beadboardUrl: BeadBoard names the agent" -}}
{{- end -}}
{{- $settings := dict "BDAUTO_LOG_FORMAT" "json" "BDAUTO_PUSHGATEWAY_INSTANCE" "bdauto" -}}
{{- with .Values.beadboardUrl }}{{ $_ := set $settings "BEADBOARD_URL" . }}{{ end -}}
{{- with .Values.agent.url }}{{ $_ := set $settings "BDAUTO_AGENT_URL" . }}{{ end -}}
{{- with .Values.agent.name }}{{ $_ := set $settings "BDAUTO_AGENT_NAME" . }}{{ end -}}
{{- if .Values.kubernetes.enabled -}}
{{- $_ := set $settings "BDAUTO_KUBERNETES_TEMPLATE" "bdauto-agent" -}}
{{- $_ := set $settings "BDAUTO_AGENT_SLOTS" (toString .Values.kubernetes.slots) -}}
{{- $_ := set $settings "BDAUTO_AGENT_TIMEOUT" .Values.kubernetes.timeout -}}
{{- end -}}
{{- toYaml (mergeOverwrite $settings (deepCopy (.Values.settings | default dict))) -}}
{{- end }}

{{/* The configuration file. Without one it is empty. */}}
{{- define "bdauto.config" -}}
{{- .Values.config | default "# docs/configuration.md has the keys.\n" -}}
{{- end }}

{{- define "bdauto.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* A NetworkPolicy's rule that lets the port of the Dolt server out, inside of the cluster or to dolt.cidr. */}}
{{- define "bdauto.dolt" -}}
- to:
    {{- if .Values.dolt.cidr }}
    - ipBlock:
        cidr: {{ .Values.dolt.cidr }}
    {{- else }}
    - namespaceSelector: {}
    {{- end }}
  ports:
    - port: {{ .Values.dolt.port }}
{{- end }}

{{/* The pods' template. Takes [root, the workload's name, the actor in the tracker, the command]. */}}
{{- define "bdauto.template" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $actor := index . 2 -}}
{{- $command := index . 3 -}}
{{- $listens := eq $name "bdauto" -}}
{{- $values := $root.Values -}}
metadata:
  labels:
    {{- include "bdauto.labels" (list $root $name) | nindent 4 }}
  annotations:
    {{- with $values.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    # A changed setting replaces the running pods.
    bdauto/config-checksum: {{ printf "%s%s%s" (include "bdauto.metadata" $root) (include "bdauto.settings" $root) (include "bdauto.config" $root) | sha256sum }}
spec:
  {{- if not $listens }}
  restartPolicy: Never
  {{- end }}
  {{- if $values.kubernetes.enabled }}
  serviceAccountName: bdauto
  {{- end }}
  automountServiceAccountToken: {{ $values.kubernetes.enabled }}
  enableServiceLinks: false
  # Longer than one HTTP request (30s) and bd's writes around it, so that a bead in hand is finished.
  terminationGracePeriodSeconds: 120
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $listens }}
  # Replicas go to different nodes where that is possible.
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          app.kubernetes.io/name: bdauto
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: bdauto
      image: {{ include "bdauto.image" $root | quote }}
      {{- with $values.image.pullPolicy }}
      imagePullPolicy: {{ . }}
      {{- end }}
      command: {{ toJson $command }}
      env:
        - name: BEADS_ACTOR
          value: {{ $actor }}
        - name: HOME
          value: /tmp
        - name: BDAUTO_METADATA
          value: /etc/beads-metadata/metadata.json
        - name: BDAUTO_CONFIG
          value: /etc/bdauto/config.toml
        {{- if $listens }}
        - name: BDAUTO_LISTEN
          value: 0.0.0.0:9464
        {{- end }}
        {{- if $values.agent.url }}
        - name: BDAUTO_AGENT_TOKEN_FILE
          value: /etc/beads-agent/token
        {{- end }}
        - name: BDAUTO_PUSHGATEWAY_NAMESPACE
          valueFrom:
            fieldRef:
              fieldPath: metadata.namespace
        - name: BEADS_DOLT_PASSWORD
          valueFrom:
            secretKeyRef:
              name: {{ $values.dolt.existingSecret | quote }}
              key: {{ $values.dolt.passwordKey | quote }}
              optional: true
        # A notification URL holds a secret. A key that is missing is none.
        - name: BDAUTO_NOTIFY_URL
          valueFrom:
            secretKeyRef:
              name: {{ $values.notify.existingSecret | quote }}
              key: {{ $values.notify.urlsKey | quote }}
              optional: true
      envFrom:
        - configMapRef:
            name: bdauto-settings
      {{- if $listens }}
      ports:
        - name: metrics
          containerPort: 9464
      # Alive is not the same as ready: while bd or BeadBoard is down the process waits and must not be restarted.
      startupProbe:
        httpGet: {path: /healthz, port: metrics}
        periodSeconds: 2
        failureThreshold: 30
      livenessProbe:
        httpGet: {path: /healthz, port: metrics}
        periodSeconds: 20
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet: {path: /readyz, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
      {{- end }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        runAsNonRoot: true
        capabilities:
          drop: [ALL]
      volumeMounts:
        - name: beads-metadata
          mountPath: /etc/beads-metadata
          readOnly: true
        - name: bdauto-config
          mountPath: /etc/bdauto
          readOnly: true
        {{- if $values.agent.url }}
        - name: agent-token
          mountPath: /etc/beads-agent
          readOnly: true
        {{- end }}
        - name: tmp
          mountPath: /tmp
  volumes:
    - name: beads-metadata
      configMap:
        name: beads-metadata
    - name: bdauto-config
      configMap:
        name: bdauto-config
    {{- if $values.agent.url }}
    # Without the Secret the pod starts all the same, and bdauto says which file it misses.
    - name: agent-token
      secret:
        secretName: {{ $values.agent.existingSecret | quote }}
        optional: true
        defaultMode: 288 # 0440
        items:
          - key: {{ $values.agent.tokenKey | quote }}
            path: token
    {{- end }}
    # In memory: bd's scratch files cost the node's disk nothing. What is in it counts towards the memory limit.
    - name: tmp
      emptyDir:
        medium: Memory
        sizeLimit: 64Mi
{{- end }}
