"""Whether all parts of an agent are there and fit together: what a rehearsal looks at besides."""

import sys

from micropython import const

from .. import drop

# What an update loads beside the way of its bytes, by phases; and what the next contact needs. By
# all names that another module asks for when it is too late: a package may bring some modules of
# one release to the others of another.
_PHASES = const(
    (
        # What the way of the bytes has left in RAM comes first.
        "package.vetting enough_for free_blocks,install.staging Staging.copy_aside"
        " Staging.check Staging.unchanged Staging.retire"
        ",install.start begin,install.finish finish delete retire"
        ",install.marks Marks.note Marks.tick Marks.save"
        ",install.again go_on,install.resume look,begin connect"
        ",install.journal Journal.line Journal.keep Places.make Places.make_group",
        "package.source check_source starts_recovery starts_itself,install.boot_file instead"
        ",package.pax extend,package.utf8 is_utf8",
        "package.signed SignedReader,package.manifest receive,package.signature verify",
        # A node that last took a .tar has not seen this one.
        "package.archive read_gzip_header,package.ahead ReadAhead.begin,package.inflate Gzip"
        ",package.zlib Zlib,package.widen widen",
        "package.plan choose,package.wanted Wanted,front front",
        "request ask_policy read note skip,serve step listen,local install",
        "halves begin handle finish,borrowed Borrowed,config complete,chunks Chunks",
        "backoff remember note seen,dial linked,enter lose,trust secured address verdict",
        "recovery install boot,install.transaction commit discard forget save owed"
        " read_mark keep_sequence reset_after_flash_error,install.attempt check_space"
        " count_attempt keep_names was_told staged,install.trouble outcome_of end_attempt",
        # Where a request stands on flash each contact begins with it, and broken would end there.
        "install.report stand_before finish done put_back,install.kept has_ended",
        "install.ready prepare write_copies,install.ending install fail send"
        ",install.opening settle go_on,stat Stat.look Stat.begin Stat.end Stat.gone Stat.close",
        "install.proof decide,install.trial confirm give_up status",
    )
)
# What all phases behind them need: loading is what takes time.
_STAY = const(("recovery", "install.transaction"))


def load_all():
    """Load what an update loads, phase by phase. Raises what that does, or AttributeError."""
    for phase in _PHASES:
        homes = []
        try:
            for names in phase.split(","):
                home, *names = names.split(" ")
                module = __name__.replace("install.parts", home)
                if home not in _STAY:
                    homes.append(home)
                __import__(module)
                for name in names:
                    found = sys.modules[module]
                    for part in name.split("."):
                        found = getattr(found, part)
                    found = None  # else its code stays in RAM
        finally:
            drop(*homes)  # the confirm needs the room, also where there was too little for this
