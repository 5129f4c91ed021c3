# Stands in for the adapter's ota.py where only the migration is tried.


def checkAndApply(client):
    import ota_insighio

    return ota_insighio.check(client)
