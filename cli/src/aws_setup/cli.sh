#!/bin/sh
# Makes trust anchor, role and profile @name@ for IAM Roles Anywhere, and prints the target for roleseal's
# targets.toml. It is to run once: a second run would make a second trust anchor of that name.
set -eu
@each account@here=$(aws@region_option@ sts get-caller-identity --query Account --output text)
if [ "$here" != @account@ ]; then
  echo "these are credentials of account $here, not of @account@" >&2
  exit 1
fi
@end@
anchor=$(aws@region_option@ rolesanywhere create-trust-anchor --name '@name@' --enabled \
  --source '{
  "sourceType": "CERTIFICATE_BUNDLE",
  "sourceData": {
    "x509CertificateData": @bundle@
  }
}' \
  --query trustAnchor.trustAnchorArn --output text)
echo "trust anchor: $anchor" >&2
account=$(printf '%s' "$anchor" | cut -d : -f 5)

role=$(aws@region_option@ iam create-role --role-name '@role_name@' \
  --assume-role-policy-document '@trust_policy@' \
  --query Role.Arn --output text)
echo "role: $role" >&2
@each managed_policy@aws@region_option@ iam attach-role-policy --role-name '@role_name@' --policy-arn '@managed_policy@'
@end@
profile=$(aws@region_option@ rolesanywhere create-profile --name '@name@' --enabled --role-arns "$role" \
@each session_policy@  --session-policy @session_policy@ \
@end@  --query profile.profileArn --output text)
echo "profile: $profile" >&2

cat <<EOF
[target.@name@]
identity = "@name@"
role-arn = "$role"
profile-arn = "$profile"
trust-anchor-arn = "$anchor"
EOF
