#!/bin/sh
# backup.sh FOLDER [DAYS]: a backup with the time in its name; then those older than DAYS (14) are removed.
# Backups hold people's data, of erased people too: keep them no longer than you need. docs/deployment.md tells the rest.
set -eu
umask 077
folder=$1
days=${2:-14}
crm-sync backup "$folder/crm_sync-$(date -u +%Y%m%dT%H%M%SZ).backup"
# Only when there is a new one. The note of erasures beside each goes with it.
find "$folder" -maxdepth 1 -type f -name 'crm_sync-*.backup*' -mtime "+$days" -exec rm -f {} +
