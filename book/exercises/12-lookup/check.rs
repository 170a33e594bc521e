pub fn check() {
    let upper: Layer = &[("change", Entry::File), ("gone", Entry::Whiteout), ("new", Entry::File)];
    let two: Layer = &[("change", Entry::File), ("gone", Entry::File), ("old", Entry::Whiteout)];
    let one: Layer = &[("keep", Entry::File), ("change", Entry::File), ("old", Entry::File)];
    let container = [upper, two, one];
    assert_eq!(look_up(&container, "keep"), Some(2));
    assert_eq!(look_up(&container, "change"), Some(0), "the topmost copy counts");
    assert_eq!(look_up(&container, "new"), Some(0));
    assert_eq!(look_up(&container, "gone"), None, "a whiteout hides what is below it");
    assert_eq!(look_up(&container, "never"), None);
    // The same image without that container: nothing happened to it.
    let image = [two, one];
    assert_eq!(look_up(&image, "gone"), Some(0));
    assert_eq!(look_up(&image, "old"), None);
    assert_eq!(look_up(&[one], "old"), Some(0));
}
