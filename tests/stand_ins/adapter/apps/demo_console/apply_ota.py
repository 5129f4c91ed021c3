# Stands in for the adapter's apply_ota.py where only the migration is tried.


def do_apply(path):
    import ota_insighio

    return ota_insighio.do_apply(path)
