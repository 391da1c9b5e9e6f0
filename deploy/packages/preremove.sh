#!/bin/sh
# Runs before the package's files go. dpkg says "remove" and rpm says 0 when the package
# goes for good, and not on an upgrade. User, settings that were edited and /var/lib/stoa
# stay: they hold the stores.
set -e

case "$1" in
remove | 0)
  if [ -d /run/systemd/system ]; then
    systemctl disable --now stoa.service || true
  fi
  ;;
esac
