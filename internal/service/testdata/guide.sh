#!/bin/sh
# The Neon guide's three steps, as its reader types them. What the reader copies by hand
# from one step's answer into the next is copied here by sed.
#
#   SERVER              where the guide has http://localhost:3000
#   UPLOAD              where the guide has https://upload.imagekit.io
#   IMAGEKIT_PUBLIC_KEY the reader's public key
#   IMAGE               the picture to upload
#
# Prints each answer, and last the file's id.
set -eu

# A refusal ends the script; nothing else is added to what the reader types.
curl() { command curl -sS --fail-with-body "$@"; }

# The value of a JSON answer's field: text or number, no escapes in it.
field() { printf '%s' "$1" | sed -n "s/.*\"$2\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }

# Step 1: get the parameters that sign an upload.
params=$(curl "$SERVER/generate-auth-params")
echo "$params"
token=$(field "$params" token)
signature=$(field "$params" signature)
expire=$(field "$params" expire)

# Step 2: upload straight to ImageKit.
uploaded=$(curl -X POST "$UPLOAD/api/v1/files/upload" \
  -F "file=@$IMAGE" \
  -F "fileName=guide.png" \
  -F "publicKey=$IMAGEKIT_PUBLIC_KEY" \
  -F "token=$token" \
  -F "signature=$signature" \
  -F "expire=$expire")
echo "$uploaded"
fileId=$(field "$uploaded" fileId)
url=$(field "$uploaded" url)

# Step 3: have the metadata saved.
curl -X POST "$SERVER/save-metadata" \
  -H 'Content-Type: application/json' \
  -d "{\"fileId\":\"$fileId\",\"url\":\"$url\"}"
echo
echo "$fileId"
