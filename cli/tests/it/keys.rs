//! Keys are made so that only their owner reads them, and never overwritten.

use super::support::agentforge;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_key_is_made_once_and_its_public_part_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key.pem");
    let path = file.to_str().unwrap();
    let made = agentforge(["keys", "new", path]);
    assert_eq!((made.code, made.out.as_str()), (0, ""), "{}", made.err);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let key = std::fs::read_to_string(&file).unwrap();
    let again = agentforge(["keys", "new", path]);
    assert!(again.code == 1 && again.err.contains("never overwritten"), "{}", again.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), key);

    let public = agentforge(["keys", "public", path]);
    assert_eq!(public.code, 0, "{}", public.err);
    assert!(public.out.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{}", public.out);
    // What openssl makes of the same key, where there is one.
    if let Ok(openssl) = std::process::Command::new("openssl").args(["pkey", "-pubout", "-in", path]).output() {
        assert_eq!(String::from_utf8_lossy(&openssl.stdout), public.out);
    }
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = agentforge(["keys", "public", path]);
    assert!(open.code == 1 && open.err.contains("chmod 600"), "{}", open.err);
}
