# What is done on a host of the operator's own, after agent.sh; called by verb.
# A slot is a folder; its agent is found by the process that was started for it.
hf_alive() { # slot
  pid=$(cat "$1/pid" 2>/dev/null) && [ -n "$pid" ] &&
    grep -qasF -e "$1/spool" "/proc/$pid/cmdline"
}

hf_list() { # root
  for slot in "$1"/*/slots/*; do
    [ -d "$slot" ] || continue
    run=${slot%/slots/*}
    if hf_alive "$slot"; then echo "${run##*/} ${slot##*/} running"; fi
  done
  for run in "$1"/*; do
    [ -d "$run" ] && echo "${run##*/} - there"
  done
  return 0
}

hf_start() { # run-folder slot-name
  slot="$1/slots/$2"
  hf_alive "$slot" && return 0
  mkdir -p "$slot"
  HOLDFAST_MACHINE_ID="$HF_NAME.$2" PYTHONPATH="$1/agent" \
    setsid nohup timeout -k 60 "$HF_LIFETIME_S" \
    "$HF_PYTHON" -m shardagent --site "$HF_SITE" --run "$HF_RUN" \
    --spool "$slot/spool" >"$slot/agent.out" 2>&1 </dev/null &
  echo $! >"$slot/pid"
}

hf_kill() { # run-folder signal slot-names ("" for all)
  left=0
  for slot in "$1"/slots/*; do
    [ -d "$slot" ] || continue
    if [ -n "$3" ]; then
      case " $3 " in *" ${slot##*/} "*) ;; *) continue ;; esac
    fi
    if hf_alive "$slot"; then
      # Its own group: the timer, and the agent under it.
      kill "-$2" "-$pid" 2>/dev/null || kill "-$2" "$pid" 2>/dev/null || true
      echo "told ${slot##*/}"
      left=1
    fi
  done
  if [ -z "$3" ] && [ "$2" = KILL ]; then
    [ "$left" = 0 ] || sleep 0.2
    rm -rf "$1"
  fi
  return 0
}
