#!/bin/sh
# On a Mac with Xcode and Rust, all that only a Mac can show, in one command:
#
#     metal/check-on-a-mac.sh
#
# Compiles metal/kernels/*.metal into one metallib, builds the plugin that embeds it, runs every
# kernel's cases on the GPU against their specifications, rows alone and in company, then the
# benches, and writes what these say as benches/record/<card>/<date>.csv. A wrong answer ends it.
set -eu

refuse() {
    echo "check-on-a-mac: $1" >&2
    exit 1
}

[ "$(uname -s)" = Darwin ] || refuse "this is $(uname -s): Metal's compiler and its GPUs are on a Mac alone"
[ "$(uname -m)" = arm64 ] || refuse "this Mac is $(uname -m): the kernels are for the GPU of an M1 or a later one"
macos=$(sw_vers -productVersion)
[ "${macos%%.*}" -ge 14 ] || refuse "this is macOS $macos: the kernels are of MSL 3.1, which macOS 14 knows first"
for compiler in metal metallib; do
    xcrun -sdk macosx --find "$compiler" >/dev/null 2>&1 ||
        refuse "there is no '$compiler': install Xcode, whose command line tools alone lack it; from Xcode 26 on also: xcodebuild -downloadComponent MetalToolchain"
done
command -v cargo >/dev/null || refuse "there is no cargo: install Rust from https://rustup.rs"

cd "$(dirname "$0")/.."
out=${CARGO_TARGET_DIR:-target}/mac
rm -rf "$out/kernels"
mkdir -p "$out/kernels"
# Cargo builds in other folders than this.
out=$(cd "$out" && pwd)

# Safe math: results are held to the specifications, NaN and infinity too.
for source in metal/kernels/*.metal; do
    stem=$(basename "$source" .metal)
    echo "compiling $stem"
    xcrun -sdk macosx metal -std=metal3.1 -mmacosx-version-min=14.0 \
        -fno-fast-math -ffp-contract=off -Wall -Werror \
        -I include -I metal/kernels -c "$source" -o "$out/kernels/$stem.air"
done
xcrun -sdk macosx metallib "$out"/kernels/*.air -o "$out/kernels.metallib"

export PAGEWISE_METALLIB="$out/kernels.metallib"
cargo build --release --locked --manifest-path metal/plugin/Cargo.toml --target-dir "$out/plugin"
plugins=$out/plugin/release

device() {
    cargo run --release --locked -p pagewise-tests --bin pagewise-device -- \
        "$1" --plugins "$plugins" --device metal
}

device parity
# Metal promises the same bits from run to run alone: a row's in company are told, not asked for.
device company || echo "check-on-a-mac: a row's bits are not its own in company: see above"

# The bench prints a record: its head, then a row for each kernel and shape.
device bench >"$out/record.csv"
head='kernel,shape,level,threads,median_ns,work,unit,figure,peak,share'
[ "$(sed -n 1p "$out/record.csv")" = "$head" ] || refuse "the bench printed no record: see $out/record.csv"

# Apple M2 Max of 38 cores: apple-m2-max-38c.
cores=$(system_profiler SPDisplaysDataType | awk '/Total Number of Cores/ { print $NF; exit }')
card=$(sysctl -n machdep.cpu.brand_string | tr '[:upper:] ' '[:lower:]-')${cores:+-${cores}c}
record=benches/record/$card/$(date +%Y-%m-%d).csv
mkdir -p "$(dirname "$record")"
cp "$out/record.csv" "$record"
echo "all of it is right; the record is $record"
