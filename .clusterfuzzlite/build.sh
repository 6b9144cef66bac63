#!/usr/bin/env bash
# Builds the targets of package fuzz for a fuzzing engine, as ClusterFuzzLite and
# OSS-Fuzz call it: from the module's folder, with the compiler, its flags and
# the engine in the environment. TARGETS limits them by a regular expression.
set -euo pipefail

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT

go run ./internal/libfuzzer -o "$built" -run "${TARGETS:-}"
for archive in "$built"/*.a; do
	name=$(basename "$archive" .a)
	# The flags are several words.
	# shellcheck disable=SC2086
	"$CXX" ${CXXFLAGS:-} $LIB_FUZZING_ENGINE "$archive" -o "$OUT/$name"
	mv "${archive%.a}_seed_corpus.zip" "$OUT/"
done
