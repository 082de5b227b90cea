#!/bin/sh
# On a machine with a card and its driver, all that only a card can show, in one command and
# at most nine minutes:
#
#     ./run.sh [--device cuda:0] [--out FOLDER] [--quick]
#
# Probes, parity, company, our bench, then peers on the same shapes, as far as python3 has them;
# then one record of it all, and ours beside peers. No network and no compiler. A stage that
# fails or runs over its time leaves what it has, and the others go on. Ends with 1 where one
# did.
set -u

device=cuda:0
out=results
quick=
while [ $# -gt 0 ]; do
    case $1 in
    --device)
        device=${2:?--device cuda:0?} && shift
        case $device in *:*) ;; *) device=$device:0 ;; esac
        ;;
    --out) out=${2:?--out FOLDER?} && shift ;;
    --quick) quick=--quick ;;
    *)
        echo "run.sh: there is no $1: [--device cuda:0] [--out FOLDER] [--quick]" >&2
        exit 2
        ;;
    esac
    shift
done

mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
cd "$(dirname "$0")" || exit 2
command -v timeout >/dev/null || {
    echo "run.sh: there is no timeout, of coreutils" >&2
    exit 2
}
for stem in probe parity company bench shapes torch xformers flashinfer record; do
    rm -f "$out/$stem.csv" "$out/$stem.txt" "$out/$stem.log"
done
failed=

# stage NAME SECONDS RESULT COMMAND...: its output is the result, its words are NAME.log.
stage() {
    name=$1 limit=$2 result=$3
    shift 3
    start=$(date +%s)
    timeout -k 2 "$limit" "$@" >"$out/$result" 2>"$out/$name.log"
    code=$?
    took=$(($(date +%s) - start))
    case $code in
    0) echo "$name: passed in $took s" ;;
    77) echo "$name: skipped" ;;
    124)
        echo "$name: FAILED: it took more than its $limit s"
        failed="$failed $name"
        ;;
    137)
        echo "$name: FAILED: it was killed after $took of its $limit s"
        failed="$failed $name"
        ;;
    *)
        echo "$name: FAILED with $code in $took s"
        tail -n 5 "$out/$name.log" | sed 's/^/    /'
        failed="$failed $name"
        ;;
    esac
    return 0
}

# The driver is asked for by the loader, whichever folder it is in.
if [ ! -e pagewise-probe ]; then
    echo "probe: skipped: this bundle holds the emulated device"
elif ./pagewise-probe 2>&1 | grep -q 'libcuda.so.1: cannot open'; then
    echo "probe: skipped: there is no driver, libcuda.so.1, on this machine"
else
    stage probe 40 probe.csv ./pagewise-probe probe.fatbin probe-tables.txt "${device#*:}"
fi
# shellcheck disable=SC2086 # without it, nothing is to be there
{
    # A kernel that breaks or hangs the card takes no other with it.
    stage parity 140 parity.txt \
        ./pagewise-device parity --device "$device" --plugins . --apart 40 $quick
    stage company 60 company.txt \
        ./pagewise-device company --device "$device" --plugins . --apart 20 $quick
    stage bench 105 bench.csv ./pagewise-device bench --device "$device" --plugins . $quick
    ./pagewise-device shapes $quick >"$out/shapes.csv" || failed="$failed shapes"
}
grep -h WRONG "$out/parity.txt" "$out/company.txt" | sed 's/^/    /'

# Wheels are archives: they need no installer.
if ls wheels/*.whl >/dev/null 2>&1 && command -v python3 >/dev/null; then
    rm -rf "$out/packages"
    mkdir -p "$out/packages"
    for wheel in wheels/*.whl; do
        timeout -k 2 10 python3 -m zipfile -e "$wheel" "$out/packages" || echo "$wheel: it is no archive"
    done
    PYTHONPATH=$out/packages${PYTHONPATH:+:$PYTHONPATH}
    export PYTHONPATH
fi
# The one that may have to compile comes last.
for peer in torch:60 xformers:40 flashinfer:65; do
    name=${peer%:*}
    if ! command -v python3 >/dev/null; then
        echo "$name: skipped: there is no python3"
        continue
    fi
    stage "$name" "${peer#*:}" "$name.csv" \
        python3 peers.py "$name" "$out/shapes.csv" --device "$device"
    grep -h '^skipped' "$out/$name.log" | sort | uniq -c | sort -rn | head -n 4 | sed 's/^ */    /'
done

records=
for record in probe bench torch xformers flashinfer; do
    [ -s "$out/$record.csv" ] && records="$records $record.csv"
done
here=$(pwd)
# shellcheck disable=SC2086 # a name for each record
(cd "$out" && timeout -k 2 10 "$here/pagewise-device" table $records --out record.csv) ||
    failed="$failed table"
echo "the record is $out/record.csv"
[ -z "$failed" ] || {
    echo "FAILED:$failed"
    exit 1
}
