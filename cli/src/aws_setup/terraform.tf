# IAM Roles Anywhere: trust anchor, role and profile @name@.
@each region@# It is to be applied with the provider set to region @region@.
@end@data "aws_caller_identity" "this" {@each account@
  lifecycle {
    postcondition {
      condition     = self.account_id == "@account@"
      error_message = "These are credentials of another account."
    }
  }
@end@}

resource "aws_rolesanywhere_trust_anchor" "this" {
  name    = "@name@"
  enabled = true

  source {
    source_type = "CERTIFICATE_BUNDLE"

    source_data {
      x509_certificate_data = @bundle@
    }
  }
}

resource "aws_iam_role" "this" {
  name = "@role_name@"
  assume_role_policy = jsonencode(@trust_policy@)
}
@each managed_policies@
resource "aws_iam_role_policy_attachment" "this" {
  for_each   = toset([@managed_policies@])
  role       = aws_iam_role.this.name
  policy_arn = each.value
}
@end@
resource "aws_rolesanywhere_profile" "this" {
  name           = "@name@"
  enabled        = true
  role_arns      = [aws_iam_role.this.arn]
@each session_policy@  session_policy = @session_policy@
@end@}

# terraform output -raw target   prints the target for roleseal's targets.toml
output "target" {
  value = "[target.@name@]\nidentity = \"@name@\"\nrole-arn = \"${aws_iam_role.this.arn}\"\nprofile-arn = \"${aws_rolesanywhere_profile.this.arn}\"\ntrust-anchor-arn = \"${aws_rolesanywhere_trust_anchor.this.arn}\"\n"
}
