//! The page of a run in a real browser, wide and on a phone, light and dark. Look at the pictures, whose folder the
//! test prints.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::environment::named;
use crate::support::fixture::demo;

#[test]
#[ignore = "needs Chromium: set CURMERGE_CHROMIUM"]
fn a_page_is_drawn_wide_and_narrow_light_and_dark() {
    let browser = named("CURMERGE_CHROMIUM");
    let scratch = tempfile::tempdir().unwrap().keep();
    let (base, data, out) = (demo("model.gguf"), demo("train.jsonl"), scratch.join("a.safetensors"));
    let page = scratch.join("page.html");
    curmerge!("build", base, "--data", data, "-o", out, "--report", page, "--epochs", "1").done();
    let mut pictures = Vec::new();
    for (width, dark) in [(1280, false), (1280, true), (390, false), (390, true)] {
        let picture = scratch.join(format!("{width}-{}.png", if dark { "dark" } else { "light" }));
        draw(&browser, &page, &picture, width, dark);
        let bytes = fs::read(&picture).unwrap();
        let drawn = u32::from_be_bytes(bytes[16..20].try_into().unwrap());
        assert_eq!(drawn, width, "{}", picture.display());
        assert!(bytes.len() > 50_000, "{}: {} bytes, an empty page", picture.display(), bytes.len());
        assert!(!pictures.contains(&bytes), "{}: the same as another", picture.display());
        pictures.push(bytes);
    }
    println!("pictures in {}", scratch.display());
}

/// Has the browser draw the page without a network.
fn draw(browser: &Path, page: &Path, picture: &Path, width: u32, dark: bool) {
    let scheme = format!("--blink-settings=preferredColorScheme={}", if dark { 0 } else { 1 });
    let status = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", &scheme])
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", &format!("--window-size={width},4000")])
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", page.display()))
        .status();
    assert!(status.unwrap().success(), "the browser failed");
}
