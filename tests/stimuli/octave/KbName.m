function key = KbName(name)
names = {'ESCAPE', 'b', 'space', 'UnifyKeyNames'};
key = find(strcmp(name, names));
end
