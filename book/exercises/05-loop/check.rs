pub fn check() {
    let hello = "hi\n".bytes().map(|byte| Exit::IoOut(0x3f8, byte));
    let ends = [Exit::IoOut(0x80, 0xff), Exit::IoOut(0xf4, 7), Exit::IoOut(0x3f8, b'!')];
    assert_eq!(run(hello.chain(ends)), ("hi\n".to_owned(), End::Exit(7)));
    assert_eq!(run([Exit::IoOut(0x3f8, b'a'), Exit::Hlt]), ("a".to_owned(), End::Halted));
    assert_eq!(run([Exit::IoOut(0x3f8, b'a'), Exit::Shutdown]), ("a".to_owned(), End::Crashed));
}
