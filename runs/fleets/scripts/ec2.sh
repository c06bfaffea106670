# An EC2 machine's first script, after its settings and agent.sh; runs as root.
# Whatever happens here or to the site, the machine ends: shutdown terminates it.
exec </dev/null
HF_DIR=/var/lib/holdfast
mkdir -p "$HF_DIR"
systemd-run --quiet --on-active="${HF_LIFETIME_S}s" shutdown -h now 2>/dev/null ||
  setsid sh -c "sleep $HF_LIFETIME_S; shutdown -h now" &
trap 'echo "holdfast: ends with status $?"; shutdown -h now' EXIT
trap 'exit 143' TERM

"$HF_PYTHON" - "$HF_DIR" "$HF_URL" <<'PY'
import sys, time, urllib.request

folder, url = sys.argv[1:]
IMDS = "http://169.254.169.254/latest"
FACTS = {
    "ID": "instance-id", "TYPE": "instance-type", "REGION": "placement/region",
    "ZONE": "placement/availability-zone", "EGRESS": "public-ipv4",
}

def ask(request, tries=1, limit_s=5):
    for left in range(tries, 0, -1):
        try:
            with urllib.request.urlopen(request, timeout=limit_s) as answer:
                return answer.read()
        except OSError as error:
            if left == 1:
                raise
            print(f"holdfast: {error}; trying again", flush=True)
            time.sleep(2 ** (tries - left))

Request = urllib.request.Request
lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
token = ask(Request(f"{IMDS}/api/token", headers=lifetime, method="PUT"), 3).decode()
with open(f"{folder}/machine", "w") as file:
    for name, path in FACTS.items():
        head = {"X-aws-ec2-metadata-token": token}
        try:
            said = ask(Request(f"{IMDS}/meta-data/{path}", headers=head)).decode()
        except OSError:
            said = ""  # no public address
        if said.replace("-", "").replace(".", "").replace(":", "").isalnum():
            file.write(f"export HOLDFAST_MACHINE_{name}={said}\n")
with open(f"{folder}/agent.tar.gz", "wb") as file:
    file.write(ask(url, 6, 120))
PY
. "$HF_DIR/machine"
export HOLDFAST_MACHINE_NODE="${HOLDFAST_MACHINE_ID:-}"
hf_install "$HF_DIR/agent.tar.gz" "$HF_SHA256" "$HF_DIR/agent"
cd "$HF_DIR"
PYTHONPATH="$HF_DIR/agent" "$HF_PYTHON" -m shardagent \
  --site "$HF_SITE" --run "$HF_RUN" --spool "$HF_DIR/spool"
