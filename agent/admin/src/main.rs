//! `roleseal-admin`: all of it is in the library, so that the manual is written from its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    roleseal_admin::main()
}
