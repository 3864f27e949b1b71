#!/bin/sh
# The agent of `bdauto demo --local`. It does what the prompt asks of any agent, and is no better than it should be.
exec 2>&1
bd note "$BEAD_ID" "claimed by agent $BDAUTO_JOB" >/dev/null
title=$(sed -n 's/^Title: //p')
echo "working on $BEAD_ID: $title"
case $title in
*haiku*)
    printf '%s\n' 'beads wait in the queue' 'one is taken, one agent' 'the others sleep on' | tee "$BEAD_ID.txt"
    ;;
*logo*)
    bd note "$BEAD_ID" 'blocked: which colours?' >/dev/null
    exec bd update "$BEAD_ID" --status blocked >/dev/null
    ;;
*) echo 'nothing to see here: done' ;;
esac
bd close "$BEAD_ID" --reason done >/dev/null
