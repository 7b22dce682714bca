//! The example that shows what the layer does.

use std::process::Command;

use crate::binary;
use crate::server::Home;

#[tokio::test]
async fn a_button_is_one_call_and_a_lost_answer_is_replayed() {
    let home = Home::new();
    let server = home.start(&[]);
    let mut example = Command::new(binary::example("client"));
    let output = example.arg(format!("http://{}", server.address)).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let told: Vec<_> = said.lines().map(|line| line.split(": {").next().unwrap()).collect();
    let expected = [
        "a button, clicked twice: 1 attempts, placed",
        "the second click: 1 attempts, placed",
        "a click too many: 1 attempts, a replay",
        "an answer that was lost: 2 attempts, a replay",
    ];
    assert_eq!(told, expected, "{said}");
    assert_eq!(home.journal().len(), 2);
}
