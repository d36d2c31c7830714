//! The stack's name in CloudFormation.

/// A stack's name begins with a letter and has no underscore. No two setups share a stack, since `deploy` would
/// replace what the first one made: where there were underscores, a hyphen more at the front says so, which no name
/// begins with, and a number of one bit for each of at most 64 characters says where.
pub(super) fn stack_name(name: &str) -> String {
    let bit = |c| u64::from(c == b'_');
    match name.bytes().fold(0, |bits, c| bits << 1 | bit(c)) {
        0 => format!("roleseal-{name}"),
        bits => format!("roleseal--{}-{bits:x}", name.replace('_', "-")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_has_a_stack_of_its_own_that_cloudformation_takes() {
        assert_eq!(stack_name("web-1"), "roleseal-web-1");
        assert_eq!(stack_name("web_1"), "roleseal--web-1-2");
        let mut names = vec!["1".to_owned(), "2".to_owned()];
        let mut all = HashSet::new();
        for _ in 0..6 {
            for name in &names {
                let stack = stack_name(name);
                let fits = |c: char| c == '-' || c.is_ascii_alphanumeric();
                assert!(stack.chars().all(fits), "{stack}");
                assert!(all.insert(stack), "{name} shares its stack");
            }
            let longer = |name: &String| ["-", "_", "1", "2"].map(|end| format!("{name}{end}"));
            names = names.iter().flat_map(longer).collect();
        }
        let longest = format!("1{}", "_".repeat(63));
        assert!(stack_name(&longest).len() <= 128);
    }
}
