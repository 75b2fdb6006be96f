#!/bin/sh
# Run by the image of PostgreSQL on a new volume: the role that owns the tables, the app's role, and their database.
set -eu
psql --username "${POSTGRES_USER:-postgres}" --dbname postgres --set ON_ERROR_STOP=1 <<'SQL'
\getenv owner POSTGRES_PASSWORD
\getenv app POSTGRES_APP_PASSWORD
CREATE ROLE hyprbox_owner LOGIN PASSWORD :'owner';
CREATE ROLE hyprbox LOGIN PASSWORD :'app';
CREATE DATABASE hyprbox OWNER hyprbox_owner;
SQL
