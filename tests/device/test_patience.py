"""How long a contact waits for what is retained, in virtual time."""

import random

import check
import patience_probe as probe
from patience_probe import REQUEST, Broker, contact, flash

PATIENCE_MS = 10000
FIRST, PERIOD = 3, 24
TRIAL = ("/.ota", "/.ota/state")


def waits(count, broker=None, **options):
    """How long each of so many contacts takes after its round trip, sleeping in between."""
    broker = broker or Broker()
    found = []
    for _ in range(count):
        heard, took = contact(broker, **options)
        check.equal(heard, bool(broker.retained))
        found.append(took - broker.trip_ms)
        probe.sleep()
    return found


def taught(late_ms, **options):
    """A node that has been patient after power-on, and has heard a request so late then."""
    probe.power_off()
    broker = Broker(late_ms=late_ms, **options)
    broker.retained = REQUEST
    waits(FIRST, broker)
    broker.retained = b""
    return broker


def test_the_first_contacts_after_power_on_and_each_24th_are_patient():
    probe.power_off()
    found = waits(FIRST + 3 * PERIOD)
    patient = [n for n, wait in enumerate(found) if wait == PATIENCE_MS]
    check.equal(patient, [0, 1, 2, 26, 50, 74])
    check.equal(set(found), {PATIENCE_MS, 300})  # nothing retained seen yet: 3 round trips


def test_without_a_retained_message_it_waits_three_round_trips_and_50_ms_at_least():
    for trip_ms, wait in (1, 50), (16, 50), (17, 51), (200, 600), (5000, PATIENCE_MS):
        probe.power_off()
        check.equal(waits(4, Broker(trip_ms))[3], wait)


def test_a_broker_that_keeps_the_order_costs_one_round_trip():
    for options in {"early": True}, {"early": True, "pong_first": True}:
        broker = taught(0, **options)
        found = waits(PERIOD, broker)
        check.equal(found, [0] * (PERIOD - 1) + [PATIENCE_MS])


def test_one_bad_moment_is_forgotten_by_and_by():
    broker = taught(4000)
    check.equal(waits(1, broker), [PATIENCE_MS])
    broker.late_ms, broker.retained = 44, REQUEST
    waits(15, broker)
    broker.retained = b""
    (wait,) = waits(1, broker)
    check.equal(1000 < wait < 3000, True)
    broker.retained = REQUEST
    waits(25, broker)
    broker.retained = b""
    check.equal(waits(1, broker), [300])
    # Even where all come before the fence now: one did not.
    broker.early, broker.retained = True, REQUEST
    waits(100, broker)
    broker.retained = b""
    check.equal(min(waits(2, broker)), 300)  # one of the two may be patient
    probe.power_off()  # and where messages are always late, nothing is
    broker = taught(2000)
    broker.retained = REQUEST
    check.equal(waits(20, broker), [2000] * 20)


def test_a_late_one_is_waited_for_with_a_margin():
    for late_ms, wait in (1, 300), (44, 300), (150, 450), (2000, 6000), (9000, PATIENCE_MS):
        broker = taught(late_ms)
        check.equal(waits(1, broker), [wait])
        broker.retained = REQUEST
        check.equal(waits(1, broker), [late_ms])  # and it ends at once when one is heard


def test_what_comes_in_the_same_moment_is_late_all_the_same():
    """Else no later contact would wait at all, and miss what comes half a millisecond later."""
    for late_ms in 0, 0.4:
        check.equal(waits(1, taught(late_ms)), [300])


def test_one_that_is_later_than_ever_is_heard_within_24_contacts_and_then_at_once():
    broker = taught(0, early=True)
    broker.early, broker.late_ms, broker.retained = False, 700, REQUEST
    found = []
    while not any(found) and len(found) < PERIOD:
        found.append(contact(broker)[0])
        probe.sleep()
    check.equal(found, [False] * (PERIOD - 1) + [True])
    check.equal(waits(PERIOD + 5, broker), [700] * (PERIOD + 5))
    broker.retained = b""
    check.equal(waits(1, broker), [2100])
    # What is quicker than that changes little: the next one may be as slow again.
    broker.late_ms, broker.retained = 3, REQUEST
    check.equal(waits(8, broker), [3] * 8)
    broker.late_ms = 700
    check.equal(waits(1, broker), [700])
    broker.retained = b""
    check.equal(waits(1, broker), [2100])


def test_a_message_that_is_published_just_now_teaches_nothing():
    """A person who clicks while a node listens for 10 s: the broker is not late for that."""
    probe.power_off()
    broker = Broker()
    answers = broker.schedule()
    answers.append((probe.clock.now + 7000, REQUEST, 0))
    broker.schedule = lambda: answers
    heard, took = contact(broker)
    check.equal((heard, took, probe.kept()), (True, 7000, (1, -1)))


def test_a_retained_message_that_asks_for_nothing_ends_the_wait_as_well():
    probe.power_off()
    broker = Broker(late_ms=20)
    broker.retained = b'[{"n":"e","v":3},{"n":"i","vs":"a"}]'
    heard, took = contact(broker)
    check.equal((heard, took, probe.kept()), (False, 120, (1, 20)))


def test_a_trial_is_patient():
    broker = taught(0, early=True)
    flash.has = TRIAL
    try:
        check.equal(waits(4, broker), [PATIENCE_MS] * 4)
        # Litter is none, nor is a folder that stays on a full flash.
        flash.has = TRIAL[:1]
        check.equal(waits(2, broker), [0] * 2)
    finally:
        flash.has = ()
    check.equal(waits(1, broker), [0])


def test_who_asks_for_it_gets_all_the_patience():
    broker = taught(0, early=True)
    check.equal(waits(2, broker, patient=True), [PATIENCE_MS] * 2)
    check.equal(waits(1, broker, patient=True, grace_ms=0), [PATIENCE_MS])
    check.equal(waits(1, broker, patient=True, grace_ms=20000), [20000])


def test_a_connection_that_stays_does_not_wait():
    probe.power_off()
    check.equal(waits(5, patient=None), [0] * 5)
    check.equal(probe.Rtc.kept, b"")  # nor does it keep anything
    flash.has = TRIAL
    try:
        check.equal(waits(1, patient=None), [PATIENCE_MS])  # but for a trial
    finally:
        flash.has = ()


def test_a_fixed_grace_is_that_long_each_time_and_nothing_is_kept():
    probe.power_off()
    for grace_ms in 0, 50, 12000:
        check.equal(waits(3, grace_ms=grace_ms), [grace_ms] * 3)
        flash.has = TRIAL
        try:
            check.equal(waits(1, grace_ms=grace_ms), [grace_ms])
        finally:
            flash.has = ()
    check.equal(probe.Rtc.kept, b"")


def test_the_time_since_begin_counts_as_waited():
    for away_ms, wait_ms in (0, 450), (200, 250), (449, 1), (450, 0), (86400000, 0):
        broker = taught(150)

        def away(node, ms=away_ms):
            probe.clock.now += ms

        _, took = contact(broker, halves=away)
        check.equal(took - broker.trip_ms - away_ms, wait_ms)


def test_what_came_since_begin_is_heard_and_teaches_nothing():
    """It lay there for as long as the application took."""
    broker = taught(20)
    for late_ms in 5, 400:
        broker.late_ms, broker.retained = late_ms, REQUEST

        def away(node):
            probe.clock.now += 60000

        heard, took = contact(broker, halves=away)
        check.equal((heard, took, probe.kept()[1]), (True, 60100, 20))
    # Not even that this broker keeps the order: else later contacts would not wait at all.
    for payload in REQUEST, b"[]":
        probe.power_off()
        broker.late_ms, broker.retained = 5, payload
        _, took = contact(broker, halves=away)
        check.equal((took, probe.kept()), (60100, (1, -1)))
        broker.retained = b""
        contact(broker, halves=lambda node: None)
    # What comes while it listens does, and what came before the fence.
    broker.late_ms, broker.retained = 50, REQUEST
    contact(broker, halves=lambda node: None)
    check.equal(probe.kept()[1], 50)
    probe.power_off()
    broker.early = True
    contact(broker, halves=away)
    check.equal(probe.kept()[1], 0)


def test_an_application_that_keeps_its_own_data_is_patient_at_each_boot():
    probe.power_off()
    probe.Rtc.kept = b"theirs"
    check.equal(waits(5), [PATIENCE_MS] * 5)
    check.equal(probe.Rtc.kept, b"theirs")
    # Without a sleep in between it is as with ours: kept in RAM, and through drop() as well.
    found = []
    for _ in range(FIRST + PERIOD):
        found.append(contact(Broker())[1] - 100)
        probe.ota.drop("backoff")
        from ota import backoff

        probe.backoff = backoff
    check.equal([n for n, wait in enumerate(found) if wait == PATIENCE_MS], [0, 1, 2, 26])


def test_the_same_is_not_written_twice():
    """One write a contact, which an RTC's memory does not feel; none where nothing changes."""
    probe.power_off()
    before = probe.Rtc.writes
    waits(2)
    check.equal(probe.Rtc.writes, before + 2)
    flash.has = TRIAL
    waits(9)  # patient ones: the count stands at three
    flash.has = ()
    check.equal(probe.Rtc.writes, before + 3)


def test_any_delay_up_to_10_s_is_heard_within_24_contacts():
    """Any order, any delay, one that changes; the power fails now and then, and sleeps between."""
    chance = random
    chance.seed(14)
    longest = 0
    for _ in range(120):
        probe.power_off()
        broker = Broker(chance.choice((1, 5, 60, 400, 2000)))
        most = chance.choice((0, 1, 5, 44, 150, 500, 2000, 9000, PATIENCE_MS))
        unheard = 0
        for _ in range(chance.randint(1, 90)):
            if chance.randint(0, 59) == 0:
                probe.power_off()
            if not broker.retained and chance.randint(0, 9) == 0:
                broker.retained, unheard = REQUEST, 0
            if chance.randint(0, 29) == 0:
                most = chance.choice((0, 5, 150, 2000, PATIENCE_MS))
            broker.early = most == 0
            broker.pong_first = chance.randint(0, 3) == 0
            broker.late_ms = most - chance.randint(0, 9) * most // 20
            heard, took = contact(broker)
            if took > broker.trip_ms + PATIENCE_MS:
                raise AssertionError("waited for %d ms" % took)
            if heard:
                broker.retained, unheard = b"", 0
            elif broker.retained:
                unheard += 1
                longest = max(longest, unheard)
                if unheard >= PERIOD:
                    raise AssertionError("not heard in %d contacts" % unheard)
            probe.sleep()
    check.equal(longest > 15, True)  # else this shows nothing


check.run(globals())
