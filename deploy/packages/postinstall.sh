#!/bin/sh
# Runs after the package is unpacked, first or again: makes the user and its folder, and
# restarts a running server. A first installation starts nothing: settings are missing.
set -e

if command -v systemd-sysusers >/dev/null 2>&1; then
  systemd-sysusers stoa.conf
elif ! getent passwd stoa >/dev/null; then
  getent group stoa >/dev/null || groupadd --system stoa
  useradd --system --gid stoa --home-dir /var/lib/stoa --no-create-home --shell /usr/sbin/nologin --comment Stoa stoa
fi
install -d -o stoa -g stoa -m 0700 /var/lib/stoa

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
  systemctl try-restart stoa.service || true
fi
