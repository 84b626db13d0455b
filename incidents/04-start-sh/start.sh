#!/bin/bash
# The image's start script: the monitoring agent first, then the application in the shell's place.
set -e
/incident/agent/init.sh
exec node /incident/main_app.js
