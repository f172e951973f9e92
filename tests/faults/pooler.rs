//! PgBouncer goes away. Its pool modes are in `tests/pooler.rs`.

use std::time::Instant;

use super::*;

#[test]
fn a_pooler_that_restarts_is_one_offline_and_one_online() {
    let server = Server::start();
    let Some(mut pooler) = PgBouncer::start(&server, "session") else {
        return;
    };
    let direct = ["a", "b"].map(|name| online(Config::new(name), &server));
    let pooled = Config::new("c").join(&pooler.params()).expect("valid");
    let [a, b] = direct;
    let members = [a, b, pooled];
    expect(&members[2], "online");
    for member in &members {
        expect_joins(member, ["a", "b", "c"]);
    }
    let leavers = Leavers::join(&pooler.params());
    meanwhile(&members, || {
        pooler.stop();
        expect(&members[2], "offline");
        leavers.leave_in_time();
        pooler.start_again();
        let up = Instant::now();
        expect(&members[2], "online");
        within("online after the pooler accepts", up, RECOVERY);
    });
    expect_all_hear_all(&members);
}
