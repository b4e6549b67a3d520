#!/bin/sh
# Makes docs/report.png, the README's picture, from a page of `make run-local CONFIG=automated`: the newest, or $1. Needs Chromium.
cd "$(dirname "$0")/.." || exit
page=${1:-$(ls -t workspace/reports/taxi-automated-*.html | head -1)}
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars \
    --window-size=1280,1560 --screenshot=docs/report.png "file://$PWD/$page"
