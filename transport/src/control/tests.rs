use std::os::unix::fs::MetadataExt;
use std::thread;

use super::*;

type Said = Answer<u32, String>;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary directory")
}

#[test]
fn a_conversation_with_progress() {
    let dir = directory();
    let listener = Listener::bind(dir.path()).expect("bind");
    let server = thread::spawn(move || {
        let mut connection = listener.accept().expect("accept");
        let request: String = connection.receive().expect("request").expect("one");
        connection.send(&Said::Progress(1)).expect("progress");
        connection.send(&Said::Progress(2)).expect("progress");
        connection.send(&Said::Done(request.to_uppercase())).expect("done");
    });
    let mut connection = Connection::connect(dir.path()).expect("connect").expect("a listener");
    let mut steps = Vec::new();
    let answer: Said = connection.ask(&"hello\nthere", |step| steps.push(step)).expect("answer");
    assert_eq!(answer, Answer::Done("HELLO\nTHERE".to_owned()));
    assert_eq!(steps, [1, 2]);
    server.join().expect("server");
    assert!(!dir.path().join(SOCKET_NAME).exists(), "the listener removes its socket");
}

#[test]
fn nobody_is_not_an_error_and_a_stale_socket_is_replaced() {
    let dir = directory();
    assert!(Connection::connect(dir.path()).expect("look").is_none());
    assert!(Connection::connect(&dir.path().join("missing")).expect("look").is_none());
    drop(UnixListener::bind(dir.path().join(SOCKET_NAME)).expect("a listener that is killed"));
    assert!(dir.path().join(SOCKET_NAME).exists());
    assert!(Connection::connect(dir.path()).expect("look").is_none());
    let _listener = Listener::bind(dir.path()).expect("replaced");
    assert!(Connection::connect(dir.path()).expect("look").is_some());
    let mode = fs::metadata(dir.path().join(SOCKET_NAME)).expect("metadata").mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_second_listener_is_refused() {
    let dir = directory();
    let _first = Listener::bind(dir.path()).expect("first");
    assert!(matches!(Listener::bind(dir.path()), Err(ControlError::Taken(_))));
}

#[test]
fn a_path_longer_than_an_address() {
    let dir = directory();
    let deep = (0..5).fold(dir.path().to_owned(), |path, _| path.join("x".repeat(60)));
    fs::create_dir_all(&deep).expect("directories");
    let _listener = Listener::bind(&deep).expect("bind");
    assert!(Connection::connect(&deep).expect("connect").is_some());
}

#[test]
fn rubbish_and_endless_lines_are_errors() {
    let dir = directory();
    let listener = Listener::bind(dir.path()).expect("bind");
    let talk = |bytes: Vec<u8>| {
        let mut client = Connection::connect(dir.path()).expect("connect").expect("a listener");
        let writer = thread::spawn(move || {
            // the listener may hang up before everything is said
            let _ = client.writer.write_all(&bytes);
            drop(client);
        });
        let mut connection = listener.accept().expect("accept");
        let outcome = connection.receive::<u32>();
        drop(connection);
        writer.join().expect("writer");
        outcome
    };
    assert!(matches!(talk(b"rubbish\n".to_vec()), Err(ControlError::Message(_))));
    assert!(matches!(talk(b"12".to_vec()), Err(ControlError::Gone)));
    assert!(matches!(talk(vec![b'1'; 3 << 20]), Err(ControlError::TooLong)));
    assert!(matches!(talk(Vec::new()), Ok(None)));
    assert!(matches!(talk(b"12\n".to_vec()), Ok(Some(12))));
}

#[test]
fn one_who_goes_away_before_the_last_answer() {
    let dir = directory();
    let listener = Listener::bind(dir.path()).expect("bind");
    let server = thread::spawn(move || {
        let mut connection = listener.accept().expect("accept");
        connection.receive::<u32>().expect("request");
        connection.send(&Said::Progress(1)).expect("progress");
    });
    let mut connection = Connection::connect(dir.path()).expect("connect").expect("a listener");
    let answer = connection.ask::<_, u32, String>(&1, |_| {});
    assert!(matches!(answer, Err(ControlError::Gone)), "{answer:?}");
    server.join().expect("server");
}
