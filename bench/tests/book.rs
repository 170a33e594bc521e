//! `lab book`, with the mdBook of this machine.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn a_reader_finds_his_own_chart_under_the_recorded_one() {
    match Command::new("mdbook").arg("--version").output() {
        Ok(found) if String::from_utf8_lossy(&found.stdout).contains(" v0.5.") => {}
        _ => return println!("skipped: mdbook 0.5 is not installed"),
    }
    let clone = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("book");
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("book")
        .args(["--book".as_ref(), clone.as_os_str()])
        .args(["--results".as_ref(), clone.join("recorded/first-race").as_os_str()])
        .args(["--out".as_ref(), folder.path().join("pages").as_os_str()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let first = folder.path().join("pages/html/index.html");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with(&format!("{}\n", first.display())));
    assert!(first.exists());
    let page = fs::read_to_string(folder.path().join("pages/html/01-first-race.html")).unwrap();
    let title = |file: &str| {
        let svg = fs::read_to_string(clone.join("recorded").join(file).join("charts/startup.svg")).unwrap();
        let start = svg.find("<title>").unwrap() + "<title>".len();
        svg[start..start + svg[start..].find("</title>").unwrap()].to_owned()
    };
    let (recorded, own) = (page.find(&title("pvm")), page.find(&title("first-race")));
    assert!(
        recorded.is_some() && recorded < own,
        "recorded at {recorded:?}, the reader's at {own:?}"
    );
}
