// What a holder types who has none of our software: the commands of docs/operator/holders.md, exactly
// as they stand there (a test compares them). They take COORDINATOR, PIN and HOLDER from the shell.

/** Shell blocks of the guide, in its order. */
export const opensslCommands = {
  /** A key, and its public half for the manifest. */
  makeKey: `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out "$HOLDER.key"
openssl pkey -in "$HOLDER.key" -pubout -out "$HOLDER.pub"
`,
  /** Functions that the others use. */
  connect: `curl_pinned() {
  curl --silent --show-error --fail-with-body --insecure \\
    --pinnedpubkey "sha256//$(printf '%s=' "$PIN" | tr '_-' '/+')" "$@"
}
base64url() { base64 -w 0 "$1" | tr '/+' '_-' | tr -d '='; }
`,
  /** The request of the open ceremony. */
  ask: `CEREMONY=$(curl_pinned "$COORDINATOR/v1/status" | jq -r .ceremony.id)
curl_pinned "$COORDINATOR/v1/ceremonies/$CEREMONY/requests/$HOLDER" > request.json
jq -j .statement request.json > statement
`,
  /** Takes the share out and appends it. */
  unwrap: `jq -r .wrapped request.json | tr '_-' '/+' | sed 's/$/====/' | fold -w 4 | grep -v '^=*$' | base64 -d > wrapped
openssl pkeyutl -decrypt -inkey "$HOLDER.key" -in wrapped -out share \\
  -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256
printf 'share %s\\n' "$(od -An -v -tx1 share | tr -d ' \\n')" >> statement
`,
  /** Instead of that, for what only needs approval. */
  approve: `printf 'approve\\n' >> statement
`,
  /** Makes answer.json. */
  sign: `openssl dgst -sha256 -sign "$HOLDER.key" -out signature statement
printf '{"holder":"%s","statement":"%s","signature":"%s"}' \\
  "$HOLDER" "$(base64url statement)" "$(base64url signature)" > answer.json
`,
  /** Hands it in. */
  handIn: `curl_pinned --json @answer.json "$COORDINATOR/v1/ceremonies/$CEREMONY/answers" > reply.json
rm -f share statement answer.json
`,
  /** Instead of `ask`, for a proof. */
  askForProof: `curl_pinned "$COORDINATOR/v1/holders/$HOLDER/challenge" > request.json
jq -j .statement request.json > statement
`,
  /** That it is one: fails otherwise. */
  checkProof: `grep -x 'kind proof' statement
jq -r '.sealed | split(".")[0] | gsub("-"; "+") | gsub("_"; "/") | @base64d' request.json | grep -o '"purpose":"proof"'
`,
  /** Instead of `handIn`. */
  handInProof: `curl_pinned --json @answer.json "$COORDINATOR/v1/holders/$HOLDER/proofs" > reply.json
rm -f share statement answer.json
`,
} as const
