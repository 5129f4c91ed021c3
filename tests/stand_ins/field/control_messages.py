# Where the field firmware deals with what is no package.


def handle(client, topic, message):
    print("other:", topic.split("/")[-1], message)
    client.clear_retained(topic)
