pub fn check() {
    let snapshot = vec![[1; PAGE], [2; PAGE], [3; PAGE]];
    let (mut first, second) = (Clone::new(&snapshot), Clone::new(&snapshot));
    assert_eq!(first.read(PAGE), 2);
    assert_eq!(first.own_pages(), 0, "reading copies nothing");
    first.write(PAGE + 7, 9);
    first.write(PAGE + 8, 10);
    assert_eq!(first.own_pages(), 1, "two writes to one page are one copy");
    assert_eq!([first.read(PAGE + 7), first.read(PAGE + 8)], [9, 10]);
    assert_eq!(first.read(PAGE + 9), 2, "the rest of the page was copied with it");
    assert_eq!(second.read(PAGE + 7), 2, "nobody else sees the write");
    assert_eq!(second.own_pages(), 0);
    assert_eq!(snapshot[1][7], 2);
}
