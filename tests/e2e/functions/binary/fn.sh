#!/bin/sh
# Does what its input asks for, and sends back every other input as it came.
cat >"/tmp/$$"
read -r word argument <"/tmp/$$" || true
case $word in
do:fail)
  echo "the function says no"
  exit 1
  ;;
do:crash) kill -KILL $$ ;;
do:sleep) sleep 3600 ;;
do:env) printenv "$argument" | tr -d '\n' ;;
do:header)
  # Headers are variables as in CGI.
  name=HTTP_$(printf %s "$argument" | tr a-z- A-Z_)
  [ "$argument" = content-type ] && name=CONTENT_TYPE
  printenv "$name" | tr -d '\n'
  ;;
*) cat "/tmp/$$" ;;
esac
rm -f "/tmp/$$"
