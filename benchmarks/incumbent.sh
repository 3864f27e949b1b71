#!/usr/bin/env bash
# What bdauto replaces, kept as the yardstick: the same two jobs in shell, with the defects that docs/reliability.md names.
#
#   BEADBOARD_URL=http://beadboard:3000 benchmarks/incumbent.sh dispatch
#   THRESHOLD_MINUTES=30 benchmarks/incumbent.sh reap
#
# Environment: BEADBOARD_URL; BEADS_ACTOR (beads-dispatcher, beads-reaper); THRESHOLD_MINUTES (30); BD (bd), the program;
# BEADS_METADATA, a read-only folder with a metadata.json that is copied to a fresh private one first, as in a new pod
# (default: bd finds its own folder from the working folder); BEADS_DB, the .beads folder to use instead of either.
set -euo pipefail

bd=("${BD:-bd}")
case ${1:-} in
  dispatch) export BEADS_ACTOR=${BEADS_ACTOR:-beads-dispatcher} ;;
  reap) export BEADS_ACTOR=${BEADS_ACTOR:-beads-reaper} ;;
  *) echo "usage: $0 dispatch|reap" >&2 && exit 2 ;;
esac

if [[ -n ${BEADS_METADATA:-} ]]; then
  private=$(mktemp -d)
  trap 'rm -rf "$private"' EXIT
  mkdir -m 700 "$private/.beads"
  cp "$BEADS_METADATA/metadata.json" "$private/.beads/"
  BEADS_DB=$private/.beads
fi
if [[ -n ${BEADS_DB:-} ]]; then
  bd+=(--db "$BEADS_DB")
fi

dispatch() {
  local url=${BEADBOARD_URL:?} beads id answer body code
  if [[ $(curl -fsS --max-time 30 "$url/api/agent-status" | jq -r .busy) == true ]]; then
    echo "the agent is busy"
    return 0
  fi
  beads=$("${bd[@]}" query 'assignee=agent AND status=open' --json)
  id=$(jq -r '[.[] | select((.acceptance_criteria // "") != "")] | sort_by(.priority, .updated_at) | .[0].id // empty' <<<"$beads")
  if [[ -z $id ]]; then
    echo "nothing to do"
    return 0
  fi
  "${bd[@]}" update "$id" -s in_progress >/dev/null
  "${bd[@]}" note "$id" "auto-dispatcher claimed at $(date -u +%Y-%m-%dT%H:%M:%SZ)" >/dev/null
  answer=$(curl -sS --max-time 30 -w '\n%{http_code}' -H 'content-type: application/json' \
    -d "$(jq -nc --arg id "$id" '{taskId: $id}')" "$url/api/agent-dispatch") || true
  code=${answer##*$'\n'} body=${answer%$'\n'*}
  if [[ $code == 200 ]]; then
    "${bd[@]}" note "$id" "dispatched: job=$(jq -r .job_id <<<"$body")" >/dev/null
    echo "dispatched $id"
  else
    "${bd[@]}" update "$id" -s open >/dev/null
    "${bd[@]}" note "$id" "dispatch failed HTTP $code: ${body:0:500}" >/dev/null
    echo "dispatch of $id failed: HTTP $code" >&2
    return 1
  fi
}

reap() {
  local threshold=${THRESHOLD_MINUTES:-30} id age
  "${bd[@]}" query 'assignee=agent AND status=in_progress' --json |
    jq -r '.[] | [.id, ((now - (.updated_at | sub("\\.[0-9]+"; "") | fromdate)) / 60 | floor)] | @tsv' |
    while IFS=$'\t' read -r id age; do
      if ((age > threshold)); then
        "${bd[@]}" note "$id" "reaper: no progress for ${age}m (threshold ${threshold}m) — blocking" </dev/null >/dev/null
        "${bd[@]}" update "$id" -s blocked </dev/null >/dev/null
        echo "reaped $id (${age}m)"
      else
        echo "kept $id (${age}m)"
      fi
    done
}

"$1"
