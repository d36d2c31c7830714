use std::fs;
use std::path::Path;

/// The tests that docs/security.md names are there.
#[test]
fn each_promise_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let (_, table) = page.split_once("## Promises and their tests").unwrap();
    let rows: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .collect();
    assert!(rows.len() > 10);
    for row in &rows[2..] {
        let tests: Vec<&str> = row
            .split('`')
            .filter(|text| text.contains("::") || text.starts_with("tests/"))
            .collect();
        assert!(!tests.is_empty(), "{row}");
        for test in tests {
            let (file, function) = test.split_once("::").unwrap_or((test, ""));
            let source = fs::read_to_string(root.join(file)).unwrap_or_default();
            assert!(
                source.contains(&format!("fn {function}"))
                    || (function.is_empty() && !source.is_empty()),
                "{test}"
            );
        }
    }
}
